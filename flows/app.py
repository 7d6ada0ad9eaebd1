"""The Typer app behind the command `shareverse`, and how its commands read their options (commands: cli.py)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="shareverse",
    help="Several agents, one generated world: record clip pairs, train a model on them, see what it generates.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
CommandFunction = Callable[..., None]


def command(example: str) -> Callable[[CommandFunction], CommandFunction]:
    """Return a decorator that makes a function a command of the same name, with an example at the end of its help."""
    return app.command(epilog=f"\b\nExample:\n  {example}")


class Target(StrEnum):
    """A flow's deployment: for this machine, or for the paper's scale with CARLA and GPUs."""

    LOCAL = "local"
    PAPER = "paper"


TargetOption = Annotated[
    Target, typer.Option("--target", envvar="SHAREVERSE_DEPLOYMENT", help="The deployment to run.")
]
PresetOption = Annotated[str | None, typer.Option(help="A preset's name, or the full path of a TOML file.")]
DatasetOption = Annotated[str | None, typer.Option(help="The data set's name.")]
OverrideOption = Annotated[
    list[str] | None, typer.Option("--override", metavar="KEY=VALUE", help="Change a field of the preset; repeatable.")
]
ParamOption = Annotated[
    list[str] | None, typer.Option("--param", metavar="KEY=VALUE", help="Set a parameter of the flow; repeatable.")
]
WatchOption = Annotated[
    bool, typer.Option("--watch/--no-watch", help="Show the log until the run ends, or start it only.")
]


def exit_with(sentence: object) -> typer.Exit:
    """Print a sentence on stderr; return the exception that ends the command with code 1."""
    print(" ".join(str(sentence).split()), file=sys.stderr)
    return typer.Exit(1)


def parse_assignments(options: Sequence[str] | None, name: str) -> dict[str, Any]:
    """Return the values of KEY=VALUE options: parsed as JSON, else as text, as `prefect deployment run` does.

    name: the options' name in messages. typer.BadParameter for an option without "=", and for a key given twice.
    """
    values: dict[str, Any] = {}
    for option in options or ():
        key, equals, value = option.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{option!r} is not KEY=VALUE.", param_hint=name)
        if key in values:
            raise typer.BadParameter(f"{key!r} is given twice.", param_hint=name)
        values[key] = parse_value(value)
    return values


def parse_value(text: str) -> Any:
    """Return the JSON value of a text, or the text itself, also for NaN and 1e999, which are no JSON."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def flow_parameters(
    named: dict[str, Any], override: Sequence[str] | None, param: Sequence[str] | None
) -> dict[str, Any]:
    """Return a flow's parameters from the options that were given; None: not given.

    named: parameters with options of their own. typer.BadParameter for a parameter that is given in two ways.
    """
    values = {name: value for name, value in named.items() if value is not None}
    if override:
        values["overrides"] = parse_assignments(override, "--override")
    params = parse_assignments(param, "--param")
    for name in sorted(values.keys() & params.keys()):
        raise typer.BadParameter(f"{name!r} is given by an option of its own too.", param_hint="--param")
    return values | params
