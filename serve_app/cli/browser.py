"""`dreamserve open`: the playground in the browser of whoever runs it."""

import webbrowser
from pathlib import Path

import httpx2
import typer

from serve_app.config.serve_file import read_file

__all__ = ["open_playground"]

_TIMEOUT_S = 5.0


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
    file = read_file(config)
    public = file.settings.http.public_url
    if public is not None and port is None:
        return f"{public.rstrip('/')}/"
    return f"{file.url(port)}/"
