"""What people and damaged files put where a value belongs, for property tests of everything that checks values."""

from __future__ import annotations

import datetime
import math
from typing import Any

import jsonschema
from hypothesis import strategies as st

from model.presets.base import NamedPreset, PresetError
from model.presets.messages import schema_of

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.integers(),
    st.sampled_from([10**400, -(10**4000), 2**31, 2**32, 2**63, 2**64]),
    st.floats(),
    st.text(max_size=20),
    st.text(st.characters(categories=["Cs", "Cc"]), min_size=1, max_size=3),
    st.sampled_from(["3", "1e-3", "true", "on", "nan", "x" * 5000, "../../etc/passwd", "\0"]),
    st.binary(max_size=5),
    st.dates(),
    st.just(datetime.time(1)),
    st.builds(object),
    st.builds(complex),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def refused_or_within_bounds(preset: NamedPreset, name: str, value: Any) -> bool:
    """Change a field to anything and tell whether it was taken; check that it was taken as it is and within bounds, or
    else refused in one sentence that names the field."""
    try:
        changed = preset.replace(**{name: value})
    except PresetError as error:
        sentence = str(error)
        assert "\n" not in sentence
        assert len(sentence) < 2000
        assert preset.kind in sentence
        return False
    taken = changed.flat()[name]
    section, _ = preset.flat_fields()[name]
    schema = schema_of(type(preset))["properties"]
    jsonschema.validate(taken, (schema[section]["properties"] if section else schema)[name])
    assert all(type(number) is not float or math.isfinite(number) for number in numbers_in(taken))
    assert taken == (list(value) if isinstance(value, tuple) else value)
    assert not isinstance(value, bool) or isinstance(taken, bool)
    assert preset.from_dict(changed.to_dict()) == changed
    return True


def numbers_in(value: Any) -> list[float]:
    """Return the numbers of a plain value, however deep."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers_in(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers_in(part)]
    return [value] if isinstance(value, int | float) else []


def unbounded(schema: dict[str, Any], name: str = "") -> list[str]:
    """Return the numbers, texts and lists of a schema that have no bounds on both sides, or take unknown fields."""
    kind, lacking = schema.get("type"), []
    if kind in ("integer", "number"):
        low, high = {"minimum", "exclusiveMinimum"} & set(schema), {"maximum", "exclusiveMaximum"} & set(schema)
        lacking += [] if (low and high) or "enum" in schema else [name]
    elif kind == "string":
        lacking += [] if {"maxLength", "enum", "const"} & set(schema) else [name]
    elif kind == "array":
        lacking += ([] if "maxItems" in schema else [name]) + unbounded(schema["items"], f"{name}[]")
    elif kind == "object":
        lacking += [] if schema.get("additionalProperties") is False else [name]
        for inner, part in schema["properties"].items():
            lacking += unbounded(part, inner) + ([] if "description" in part or name == "gates" else [inner])
    return lacking


def toml_of(values: dict[str, Any], section: str = "") -> str:
    """Return a TOML text of plain values: tables last, as TOML wants them."""
    tables = {name: part for name, part in values.items() if isinstance(part, dict)}
    lines = [f"{name} = {written(value)}" for name, value in values.items() if name not in tables]
    for name, part in tables.items():
        lines.append(f"[{name}]\n{toml_of(part, name)}")
    return "\n".join(lines)


def written(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)
