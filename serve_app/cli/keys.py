"""`dreamserve keys`: API keys of a deployment, what each may ask for, new secrets for old ones."""

import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer
import yaml
from rich.table import Table

from serve_app.cli.database import read_config, with_database
from serve_app.cli.option import DEFAULT_CONFIG, ConfigPath
from serve_app.cli.rule import rule_options
from serve_app.cli.table import show_table
from serve_app.database.keys import SqlKeyStore
from serve_app.jobs.protocol import ApiKey
from serve_app.jobs.rules import MAX_LIFETIME_S, KeyRules
from serve_app.webhooks.signing import new_secret

__all__ = ["app"]

app = typer.Typer(name="keys", no_args_is_help=True, help="API keys of a deployment.")

T = TypeVar("T")
_DAY_S = 86_400.0

_MAX_DAYS = MAX_LIFETIME_S / 86_400
Days = Annotated[
    float | None, typer.Option(min=0, max=_MAX_DAYS, help="until it expires, from now on")
]


@app.command()
@rule_options
def create(
    name: str,
    config: ConfigPath = DEFAULT_CONFIG,
    days: Days = None,
    *,
    given: Mapping[str, object],
) -> None:
    """Make a key; prints its id and its secret, which is shown only now."""
    rules = KeyRules.model_validate(given)
    lifetime_s = None if days is None else days * _DAY_S
    key, secret = _with_keys(config, lambda keys: keys.create(name, rules, lifetime_s))
    typer.echo(f"{key.id}\n{secret}")


@app.command("set")
@rule_options
def change(
    key_id: str,
    config: ConfigPath = DEFAULT_CONFIG,
    days: Days = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(help="rule to end, by its name in `show`; repeat"),
    ] = None,
    *,
    given: Mapping[str, object],
) -> None:
    """Change what a key may ask for, at once and on all replicas; the rest stays as it is."""
    ended = set(clear or ())
    if unknown := ended - {*KeyRules.model_fields, "expires_at"}:
        raise ValueError(f"unknown rules: {', '.join(sorted(unknown))}")
    lifetime_s = math.inf if "expires_at" in ended else None
    if days is not None:
        lifetime_s = days * _DAY_S
    values = {**dict.fromkeys(ended - {"expires_at"}), **given}

    async def update(keys: SqlKeyStore) -> ApiKey | None:
        known = await keys.find(key_id)
        if known is None:
            return None
        rules = KeyRules.model_validate({**known.rules.model_dump(), **values})
        return await keys.change(key_id, rules, lifetime_s)

    _print(_with_keys(config, update) or _fail())


@app.command()
def show(key_id: str, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print all that is known of a key, as YAML; its secret is not."""
    _print(_with_keys(config, lambda keys: keys.find(key_id)) or _fail())


@app.command("list")
def list_keys(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """List all keys, also revoked ones."""
    table = Table("id", "name", "begins with", "state", "expires", "rules")
    for key in _with_keys(config, lambda keys: keys.list_keys()):
        rules = key.rules.model_dump(mode="json", exclude_none=True)
        told = ", ".join(f"{name} {_plain(value)}" for name, value in rules.items())
        expires = "" if key.expires_at is None else f"{_time(key.expires_at):%Y-%m-%d %H:%M}"
        table.add_row(key.id, key.name, key.prefix, _state(key), expires, told)
    show_table(table)


@app.command()
def rotate(
    key_id: str,
    config: ConfigPath = DEFAULT_CONFIG,
    overlap_hours: Annotated[
        float,
        typer.Option(min=0, max=_MAX_DAYS * 24, help="that the secret before still works"),
    ] = 24.0,
) -> None:
    """Draw a new secret for a key, which is shown only now; the one before works on for a while."""
    secret = _with_keys(config, lambda keys: keys.rotate(key_id, overlap_hours * 3600))
    typer.echo(secret or _fail())


@app.command("webhook-secret")
def webhook_secret(
    key_id: str,
    config: ConfigPath = DEFAULT_CONFIG,
    clear: Annotated[bool, typer.Option("--clear", help="sign as the settings say again")] = False,
) -> None:
    """Sign the webhooks of a key with a new secret of its own, which is shown only now."""
    secret = None if clear else new_secret()
    if not _with_keys(config, lambda keys: keys.sign_with(key_id, secret)):
        _fail()
    if secret is not None:
        typer.echo(secret)


@app.command()
def revoke(key_id: str, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """End a key for good; exit code 1 when there is none."""
    if not _with_keys(config, lambda keys: keys.revoke(key_id)):
        _fail()


def _print(key: ApiKey) -> None:
    values = key.model_dump(mode="json", exclude_none=True)
    for name in values.keys() & {"created_at", "revoked_at", "expires_at", "old_until"}:
        values[name] = _time(values[name]).isoformat(timespec="seconds")
    typer.echo(yaml.safe_dump({**values, "state": _state(key)}, sort_keys=False), nl=False)


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    is_over = key.expires_at is not None and key.expires_at <= datetime.now(UTC).timestamp()
    return "expired" if is_over else "active"


def _plain(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _with_keys(config: Path, work: Callable[[SqlKeyStore], Awaitable[T]]) -> T:
    return with_database(read_config(config), lambda database: work(SqlKeyStore(database)))


def _fail() -> NoReturn:
    typer.echo("no active key has this id", err=True)
    raise typer.Exit(1)
