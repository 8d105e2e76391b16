"""The options for the rules of a key, the same for every command that takes them."""

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Annotated, Any

import typer

from serve_app.fairness import MAX_PRIORITY
from serve_app.jobs.rules import MOST, Feature
from serve_app.storage import names

__all__ = ["rule_options"]


def _prefix(text: str | None) -> str | None:
    if text is not None and not names.is_prefix(text):
        raise typer.BadParameter("one to three names of letters, digits, ._-, with slashes")
    return text


_OPTIONS: dict[str, object] = {  # by the names of `KeyRules`
    "requests_per_minute": Annotated[
        int | None, typer.Option("--rate", min=1, max=MOST, help="calls accepted per minute")
    ],
    "max_open": Annotated[
        int | None, typer.Option(min=0, max=MOST, help="jobs queued or processing at a time")
    ],
    "monthly_pictures": Annotated[
        int | None, typer.Option(min=0, max=MOST, help="pictures per month")
    ],
    "models": Annotated[list[str] | None, typer.Option("--model", help="it may use; repeat")],
    "features": Annotated[
        list[Feature] | None, typer.Option("--feature", help="it may use; repeat")
    ],
    "weight": Annotated[float | None, typer.Option(min=0.01, max=100, help="beside other keys; 1")],
    "max_priority": Annotated[
        int | None, typer.Option(min=0, max=MAX_PRIORITY, help="that calls may ask for; 0")
    ],
    "storage_prefix": Annotated[
        str | None,
        typer.Option(
            callback=_prefix, help="folders that its results are kept under, as customers/acme"
        ),
    ],
}


def rule_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each rule to a command, which gets those that were named as `given`."""
    own = inspect.signature(command).parameters
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _OPTIONS.items()
    ]

    def with_options(**values: Any) -> None:
        rules = {name: values.pop(name) for name in _OPTIONS}
        given = {name: value for name, value in rules.items() if value not in (None, [])}
        command(**values, given=given)

    parameters = [*(one for name, one in own.items() if name != "given"), *options]
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options
