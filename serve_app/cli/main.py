"""The command line's parser: every sub-command with its options. The work is in its siblings."""

from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli import demo as demo_command
from serve_app.cli import serving

__all__ = ["main"]

app = typer.Typer(
    name="dreamserve", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

ConfigPath = Annotated[Path, typer.Option(help="Serve config file")]


@app.command()
def run(
    config: ConfigPath = Path("configs/dev.yaml"),
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 8000,
) -> None:
    """Serve until Ctrl-C: `serve run` on a local Ray cluster of its own."""
    serving.exec_service(config, host, port)


@app.command()
def demo(
    config: ConfigPath = Path("configs/dev.yaml"),
    out: Annotated[Path, typer.Option(help="folder for the results")] = Path("out/demo"),
) -> None:
    """Start the service, send the documented inpaint request, show the result, stop."""
    demo_command.show(config, out)


@app.command()
def checkpoint(
    folder: Annotated[Path, typer.Argument(help="where to write it; made if needed")],
    seed: Annotated[int, typer.Option(help="of the random weights")] = 0,
) -> None:
    """Write a random-weight inpainting checkpoint in diffusers format: plumbing, not pictures."""
    # torch takes seconds to import; the other commands can do without.
    from serve_app.pipelines.randomweights import write_random_inpaint  # noqa: PLC0415

    write_random_inpaint(folder, seed)


def main() -> None:
    """Entry point of the `dreamserve` script."""
    app()
