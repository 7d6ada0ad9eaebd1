"""The base of all presets: validated settings with a name, read from TOML files or from a stored run."""

from __future__ import annotations

import functools
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from model.presets.messages import error_sentence, schema_of, short_repr, unknown_field_sentence

MAX_FILE_BYTES = 2**20
"""Of a preset."""
T = TypeVar("T")


class PresetError(ValueError):
    """A preset that does not exist or makes no sense: which value is wrong, and what to do."""


def tuple_of_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def codec_frames(frames: int) -> int:
    """Refuse lengths that CogVideoX's VAE decodes wrongly, without an error (trap 37: 8k+1 frames only)."""
    if frames % 8 != 1:
        raise ValueError("it must be 8k+1 (9, 17, 25, 49, ...), or the VAE decodes wrongly")
    return frames


Listed = Annotated[tuple[T, ...], Field(max_length=1000), BeforeValidator(tuple_of_list)]
"""A tuple, because the settings are frozen, that TOML and JSON give as a list."""
NotEmpty = Annotated[tuple[T, ...], Field(min_length=1, max_length=1000), BeforeValidator(tuple_of_list)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)]
Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
CountOrNone = Annotated[int, Field(ge=0, le=1_000_000)]
Frames = Annotated[int, Field(ge=9, le=4097), AfterValidator(codec_frames)]


class Settings(BaseModel):
    """Frozen settings, validated when they are made: strict types, finite numbers within bounds, no unknown fields."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class NamedPreset(Settings):
    """A preset. Field names are unique across its sections, so every field can be changed by its bare name."""

    kind: ClassVar[str] = "preset"
    folder: ClassVar[Path]
    """Where the presets that can be loaded by name are."""
    error: ClassVar[type[PresetError]] = PresetError

    name: Annotated[str, Field(min_length=1, max_length=255)]
    """The name of its file, unless the file gives another."""

    @classmethod
    def load(cls, name_or_path: str) -> Self:
        """Return the preset of a name, or of a path to a .toml file. Raises `cls.error` for what is wrong with it."""
        path, label = cls.find(name_or_path), f"{cls.kind} {name_or_path!r}"
        values = read_table(path, label, cls.error)
        return cls.from_dict({"name": path.stem} | values, label)

    @classmethod
    def find(cls, name_or_path: str) -> Path:
        """Return the file of a preset. A name is looked up among the existing ones; it is never turned into a path."""
        known = {path.stem: path for path in sorted(cls.folder.glob("*.toml"), key=lambda path: path.stem)}
        if isinstance(name_or_path, str):
            if name_or_path in known:
                return known[name_or_path]
            if name_or_path.endswith(".toml") and os.path.isfile(name_or_path):
                return Path(name_or_path)
        raise cls.error(
            f"there is no {cls.kind} {short_repr(name_or_path)}: "
            f"take one of {', '.join(known)}, or the path of a .toml file."
        )

    @classmethod
    def from_dict(cls, values: Any, label: str = "") -> Self:
        """Return the preset of what `to_dict` returned or a TOML file holds. Raises `cls.error`, which calls the preset
        `label`, by default by its own name."""
        if not label:
            label = f"{cls.kind} {short_repr(values.get('name'))}" if isinstance(values, dict) else f"the {cls.kind}"
        return validated(cls, values, label, cls.error)

    def to_dict(self) -> dict[str, Any]:
        """Return the preset as plain values for JSON."""
        return self.model_dump(mode="json")

    def flat(self) -> dict[str, Any]:
        """Return the values of all fields by their bare names, without the preset's own name."""
        values, owners = self.to_dict(), self.flat_fields()
        return {name: (values[section] if section else values)[name] for name, (section, _) in owners.items()}

    def replace(self, **changes: Any) -> Self:
        """Return a preset with fields changed by their bare names. Raises `cls.error`."""
        values, owners = self.to_dict(), self.flat_fields()
        for name, value in changes.items():
            if name not in owners:
                raise self.error(unknown_field_sentence(name, owners, f"{self.kind} {short_repr(self.name)}"))
            section = owners[name][0]
            (values[section] if section else values)[name] = value
        return self.from_dict(values)

    @classmethod
    def changes(cls, overrides: dict[str, Any] | None, **given: Any) -> dict[str, Any]:
        """Return the arguments of `replace`: `overrides`, and those of `given` that are not None. Raises `cls.error`
        for a field that is in both."""
        set_fields = {name: value for name, value in given.items() if value is not None}
        if twice := sorted(set_fields.keys() & (overrides or {}).keys()):
            raise cls.error(f"{twice[0]} is given by itself and in overrides: give it once.")
        return set_fields | (overrides or {})

    @classmethod
    def flat_fields(cls) -> dict[str, tuple[str, FieldInfo]]:
        """Return every field but the preset's name: its section ("" outside of sections) and its definition."""
        fields: dict[str, tuple[str, FieldInfo]] = {}
        for name, info in cls.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
                fields |= {inner: (name, part) for inner, part in info.annotation.model_fields.items()}
            elif name != "name":
                fields[name] = ("", info)
        return fields


def read_table(path: Path, label: str, error: type[PresetError]) -> dict[str, Any]:
    """Return the content of a TOML file. Raises `error` when it is damaged, too large or unreadable."""
    if not path.is_file():
        raise error(f"{label} cannot be read (it is no file): give a preset's file or name.")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as cause:
        raise error(f"{label} cannot be read ({cause.strerror}): make the file readable.") from cause
    if len(data) > MAX_FILE_BYTES:
        raise error(f"{label} has more than {MAX_FILE_BYTES} bytes: it is no preset, give another file.")
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as cause:
        reason = " ".join(str(cause).split()).rstrip(".")
        raise error(f"{label} holds no readable TOML ({reason}): mend the file.") from cause
    if not table:
        raise error(f"{label} holds no setting: write at least one, or give another file.")
    return table


def validated(kind: type[Any], values: Any, label: str, error: type[PresetError]) -> Any:
    """Return an instance of the model `kind` made from plain values. Raises `error`, in one sentence, for bad ones."""
    try:
        return kind.model_validate(values)
    except ValidationError as cause:
        raise error(error_sentence(cause, kind, label)) from None  # the sentence says all that pydantic does


@functools.cache
def changes_of(preset: type[NamedPreset]) -> type[Settings]:
    """Return a pydantic model with all fields of a preset by their bare names, each of them optional."""
    fields: dict[str, Any] = {}
    for name, (_, info) in preset.flat_fields().items():
        documented = Field(description=info.description, json_schema_extra=info.json_schema_extra)
        fields[name] = (Annotated[(info.annotation, *info.metadata, documented)], None)
    return create_model(f"{preset.__name__}Changes", __base__=Settings, **fields)


@dataclass(frozen=True)
class OverridesOf:
    """Annotates a `dict[str, Any]` as changes of a preset's fields by their bare names.

    Its JSON schema lists all fields, and each value is validated as in the preset. Fields are checked against each
    other by `replace`.
    """

    preset: type[NamedPreset]

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        validated(changes_of(self.preset), values, "overrides", self.preset.error)
        return values

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.validate, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: Any) -> dict[str, Any]:
        return {name: value for name, value in schema_of(changes_of(self.preset)).items() if name != "description"}
