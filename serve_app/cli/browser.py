"""`dreamserve open`: the playground in the browser of whoever runs it."""

import webbrowser
from pathlib import Path

import httpx2
import typer
import yaml

from serve_app.config import AppConfig

__all__ = ["open_playground"]

_TIMEOUT_S = 5.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  # nobody can go there


def open_playground(config: Path, port: int | None, *, is_shown: bool) -> None:
    """Print the playground's address and open it; exit code 1 when nobody answers there.

    Args:
        config: Serve config file, which has the address.
        port: in place of the file's, as `dreamserve run --port`.
        is_shown: open the browser as well.
    """
    url = _url(config, port)
    typer.echo(url)
    try:
        status = httpx2.get(url, timeout=_TIMEOUT_S, trust_env=False).status_code
    except httpx2.HTTPError as exc:
        typer.echo(f"dreamserve: nobody answers at {url}; start it with `make run`", err=True)
        raise typer.Exit(1) from exc
    if status != httpx2.codes.OK:
        typer.echo(f"dreamserve: there is no playground at {url}: http.playground", err=True)
        raise typer.Exit(1)
    if is_shown and not webbrowser.open(url):
        typer.echo("No browser was found here: open the address in one.")


def _url(config: Path, port: int | None) -> str:
    """Address for people: the public one, else where the proxy of this machine listens."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    app = AppConfig.model_validate(settings["applications"][0].get("args", {}))
    if app.http.public_url is not None and port is None:
        return f"{app.http.public_url.rstrip('/')}/"
    where = settings.get("http_options", {})
    host = where.get("host", "127.0.0.1")
    host = _EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port or where.get('port', 8000)}/"
