"""Turns pydantic's errors on a preset into one sentence: which field, its value, where it is, and what is allowed."""

from __future__ import annotations

import difflib
import functools
import reprlib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError


class FieldConflict(ValueError):
    """Fields of a preset that contradict each other: what the `conflict` is, and the `advice` that resolves it."""

    def __init__(self, conflict: str, advice: str) -> None:
        super().__init__(f"{conflict}: {advice}")
        self.conflict, self.advice = conflict, advice


class ShortRepr(reprlib.Repr):
    """A `repr` of bounded length for any value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 100
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to print integers of more than 4,300 digits."""
        return f"an integer of {x.bit_length()} bits" if x.bit_length() > 300 else repr(x)


def short_repr(value: object) -> str:
    """Return a value as an error message shows it: on one line, of bounded length."""
    return " ".join(ShortRepr().repr(value).split())


@functools.cache
def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema with all references resolved, without titles and defaults."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(entry) for entry in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            part = definitions[part["$ref"].removeprefix("#/$defs/")] | {k: v for k, v in part.items() if k != "$ref"}
        kept = {name: resolved(value) for name, value in part.items() if name not in ("title", "default")}
        if "properties" in part:  # a field may be called "title" or "default"
            kept["properties"] = {name: resolved(value) for name, value in part["properties"].items()}
        return kept

    return resolved(schema)


def allowed_values(schema: dict[str, Any]) -> str:
    """Return in words which values a JSON schema allows."""
    if "enum" in schema or "const" in schema:
        values = [str(value) for value in schema.get("enum", [schema.get("const")])]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return number_range(schema)
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        return f"a list of {schema.get('minItems', 0)} to {schema['maxItems']}"
    if kind == "string":
        return f"{schema.get('wording', 'text')} of {schema.get('minLength', 0)} to {schema['maxLength']} characters"
    return "a table of fields"


def number_range(schema: dict[str, Any]) -> str:
    """Return in words which numbers a bounded JSON schema allows."""
    noun = "a whole number" if schema["type"] == "integer" else "a finite number"
    if "multipleOf" in schema:
        noun = f"a multiple of {schema['multipleOf']}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None:
        return f"{noun} above {schema['exclusiveMinimum']:.12g} and at most {high:.12g}"
    if high is None:
        return f"{noun} from {low:.12g} to below {schema['exclusiveMaximum']:.12g}"
    return f"{noun} from {low:.12g} to {high:.12g}" if low != high else f"{low:.12g}"


def error_sentence(error: ValidationError, kind: type[BaseModel], label: str) -> str:
    """Return what is wrong with `label`, a preset of class `kind`: the first error, and how many more there are."""
    # a misspelt name comes first, because it explains why another name is missing
    first, *others = sorted(error.errors(include_url=False), key=lambda details: details["type"] != "extra_forbidden")
    # pydantic reports a bad entry of a list and the list itself
    others = [other for other in others if other["loc"] != first["loc"][: len(other["loc"])]]
    more = f" ({len(others)} more {'value does' if len(others) == 1 else 'values do'} not fit.)" if others else ""
    return describe_error(first, kind, label) + more


def describe_error(details: Any, kind: type[BaseModel], label: str) -> str:
    """Return one of pydantic's errors as a sentence."""
    location, reason = details["loc"], details["type"]
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, FieldConflict):
        return f"{cause.conflict} in {label}: {cause.advice}."
    if reason in ("extra_forbidden", "invalid_key"):
        return misplaced_field(location, kind, label)
    advice = str(cause) if cause else f"give {allowed_values(schema_at(kind, location))}"
    if reason == "missing":
        return f"{field_name(location)} is missing in {label}: {advice}."
    if not location:
        return f"{label} is {short_repr(details['input'])}: {advice}."
    return f"{field_name(location)} is {short_repr(details['input'])} in {label}: {advice}."


def misplaced_field(location: tuple[int | str, ...], kind: type[BaseModel], label: str) -> str:
    """Return the sentence for a field that is unknown in its section: it belongs to another one, or to none."""
    *section, name = location
    for other, part in schema_of(kind)["properties"].items():
        if name in part.get("properties", {}):
            return f"{name} in {label} stands outside of its section: move it to [{other}]."
    where = f"{field_name(tuple(section))} of {label}" if section else label
    return unknown_field_sentence(name, schema_at(kind, tuple(section))["properties"], where)


def unknown_field_sentence(name: object, known: Iterable[str], where: str) -> str:
    """Return the sentence for a field that does not exist, with the closest known name, or all of them."""
    known = sorted(known)
    closest = difflib.get_close_matches(str(name)[:100], known, 1, cutoff=0.5)
    advice = f"did you mean {closest[0]}?" if closest else f"its fields are {', '.join(known)}."
    return f"{where} has no field {short_repr(name)}: {advice}"


def field_name(location: tuple[int | str, ...]) -> str:
    """Return a field's name as in a preset: without its section, with the index of a list's entry."""
    *_, name = (part for part in location if isinstance(part, str))
    return name + "".join(f"[{part}]" for part in location if isinstance(part, int))


def schema_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> dict[str, Any]:
    """Return the part of a model's JSON schema that describes the field at a location."""
    schema = schema_of(kind)
    for part in location:
        schema = schema["items"] if isinstance(part, int) else schema["properties"][part]
    return schema
