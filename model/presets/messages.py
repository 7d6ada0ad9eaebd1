"""What is wrong with a preset, in one sentence: the field, its value, where it stands, and what it may be."""

from __future__ import annotations

import difflib
import functools
import reprlib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError


class Misfit(ValueError):
    """Fields that do not fit each other: `what` is so, and the `advice`."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}: {advice}")
        self.what, self.advice = what, advice


class ShortRepr(reprlib.Repr):
    """A value on one line of bounded length, whatever it is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 100
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        """Python writes no integers of more than 4,300 digits."""
        return f"an integer of {x.bit_length()} bits" if x.bit_length() > 300 else repr(x)


def shown(value: object) -> str:
    """Return a value as a sentence shows it."""
    return " ".join(ShortRepr().repr(value).split())


@functools.cache
def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema with every reference replaced by what it refers to, without titles and defaults."""
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
        if "properties" in part:  # whose names are fields, not keywords
            kept["properties"] = {name: resolved(value) for name, value in part["properties"].items()}
        return kept

    return resolved(schema)


def allowed(schema: dict[str, Any]) -> str:
    """Return in words what a JSON schema allows."""
    if "enum" in schema or "const" in schema:
        values = [str(value) for value in schema.get("enum", [schema.get("const")])]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return number(schema)
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        return f"a list of {schema.get('minItems', 0)} to {schema['maxItems']}"
    if kind == "string":
        return f"{schema.get('wording', 'text')} of {schema.get('minLength', 0)} to {schema['maxLength']} characters"
    return "a table of fields"


def number(schema: dict[str, Any]) -> str:
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


def sentence(error: ValidationError, kind: type[BaseModel], label: str) -> str:
    """Return what is wrong with `label`, a preset of class `kind`: the first fault, and how many more there are."""
    # a misspelt name comes first: it explains the name that is missing
    first, *others = sorted(error.errors(include_url=False), key=lambda details: details["type"] != "extra_forbidden")
    others = [other for other in others if other["loc"] != first["loc"][: len(other["loc"])]]  # a list and its entry
    more = f" ({len(others)} more {'value does' if len(others) == 1 else 'values do'} not fit.)" if others else ""
    return fault(first, kind, label) + more


def fault(details: Any, kind: type[BaseModel], label: str) -> str:
    """Return one of pydantic's errors as a sentence."""
    location, reason = details["loc"], details["type"]
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, Misfit):
        return f"{cause.what} in {label}: {cause.advice}."
    if reason in ("extra_forbidden", "invalid_key"):
        return misplaced(location, kind, label)
    advice = str(cause) if cause else f"give {allowed(schema_at(kind, location))}"
    if reason == "missing":
        return f"{named(location)} is missing in {label}: {advice}."
    if not location:
        return f"{label} is {shown(details['input'])}: {advice}."
    return f"{named(location)} is {shown(details['input'])} in {label}: {advice}."


def misplaced(location: tuple[int | str, ...], kind: type[BaseModel], label: str) -> str:
    """Return the sentence for a field where there is none of that name."""
    *section, name = location
    for other, part in schema_of(kind)["properties"].items():
        if name in part.get("properties", {}):
            return f"{name} in {label} stands outside of its section: move it to [{other}]."
    where = f"{named(tuple(section))} of {label}" if section else label
    return unknown_field(name, schema_at(kind, tuple(section))["properties"], where)


def unknown_field(name: object, known: Iterable[str], where: str) -> str:
    """Return the sentence for a field that there is not: the nearest that there is, or all."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name)[:100], known, 1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else f"its fields are {', '.join(known)}."
    return f"{where} has no field {shown(name)}: {advice}"


def named(location: tuple[int | str, ...]) -> str:
    """Return a field's name as a preset has it: without its section, entries of lists by their position."""
    *_, name = (part for part in location if isinstance(part, str))
    return name + "".join(f"[{part}]" for part in location if isinstance(part, int))


def schema_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> dict[str, Any]:
    """Return the part of a model's schema that describes what is at a location."""
    schema = schema_of(kind)
    for part in location:
        schema = schema["items"] if isinstance(part, int) else schema["properties"][part]
    return schema
