"""The command line's parser: the sub-commands with their options. The work is in its siblings.

Groups of commands that stand for themselves (`db`, `jobs`) have their parser beside their work.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from serve_app import __version__, errors
from serve_app.cli import (
    browser,
    canary,
    convert,
    db,
    fault,
    jobs,
    keys,
    models,
    reload,
    scan,
    serving,
    usage,
    webhooks,
)
from serve_app.cli import config as config_command
from serve_app.cli import demo as demo_command
from serve_app.cli import deploy as deploy_command
from serve_app.cli import doctor as doctor_command
from serve_app.cli import init as init_command
from serve_app.cli import top as top_command
from serve_app.cli.option import DEFAULT_CONFIG, ConfigPath
from serve_app.config import reference
from serve_app.telemetry import metrics as metric_list

__all__ = ["main"]

app = typer.Typer(name="dreamserve", no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"dreamserve {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="print the version and end"
        ),
    ] = False,
) -> None:
    """A self-hosted Stable Diffusion server that speaks the Community Models API V4."""
    assert not version, "its callback ends the program"


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="where to write it; made if needed")] = Path(),
    prod: Annotated[
        bool, typer.Option("--prod", help="for GPUs and keys, in place of the demo")
    ] = False,
) -> None:
    """Write a configuration with every setting explained, and a folder of models."""
    for path in init_command.write(folder, is_prod=prod):
        typer.echo(path)


@app.command()
def doctor(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Show versions, GPUs, what the deployment reaches, and what is wrong; then exit code 1."""
    doctor_command.show(config)


@app.command()
def run(
    config: ConfigPath = DEFAULT_CONFIG,
    host: Annotated[str | None, typer.Option(help="address to listen on; else the file's")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="port to listen on; else the file's")
    ] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="with Ray's dashboard, which takes deploys")
    ] = False,
) -> None:
    """Serve until Ctrl-C: `serve run` on a local Ray cluster of its own."""
    serving.exec_service(_at_hand(config), host, port, has_dashboard=dashboard)


@app.command("open")
def open_command(
    config: ConfigPath = Path("configs/dev.yaml"),
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="where it runs, if not as the file says")
    ] = None,
    only_print: Annotated[bool, typer.Option("--print", help="print the address only")] = False,
) -> None:
    """Open the playground of the running service in a browser."""
    browser.open_playground(config, port, is_shown=not only_print)


@app.command()
def demo(
    config: ConfigPath = DEFAULT_CONFIG,
    out: Annotated[Path, typer.Option(help="folder for the results")] = Path("out/demo"),
) -> None:
    """Start the service, send the documented inpaint request, show the result, stop."""
    demo_command.show(_at_hand(config), out)


@app.command()
def checkpoint(
    folder: Annotated[Path, typer.Argument(help="where to write it; made if needed")],
    seed: Annotated[int, typer.Option(help="of the random weights")] = 0,
) -> None:
    """Write a random-weight inpainting checkpoint in diffusers format: plumbing, not pictures."""
    # torch takes seconds to import; the other commands can do without.
    from serve_app.testing.checkpoints import write_random_inpaint  # noqa: PLC0415

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        write_random_inpaint(Path(unfinished) / "checkpoint", seed)
        (Path(unfinished) / "checkpoint").rename(folder)


@app.command()
def settings() -> None:
    """Print every setting with its default and meaning, as Markdown."""
    typer.echo(reference.markdown(), nl=False)


@app.command()
def metrics() -> None:
    """Print every metric with its labels and meaning, as Markdown."""
    typer.echo(metric_list.markdown(), nl=False)


@app.command()
def top(
    address: Annotated[
        str, typer.Option(help="of the Ray cluster; auto: on this machine")
    ] = "auto",
    scrape: Annotated[
        list[str] | None, typer.Option(help="metrics page to read in place of asking Ray; repeat")
    ] = None,
    interval: Annotated[float, typer.Option(min=1, help="seconds between looks")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="print one table and end")] = False,
    config: Annotated[
        Path, typer.Option(help="Serve config file of the service, whose token Ray asks for")
    ] = DEFAULT_CONFIG,
) -> None:
    """Show models, queues, rows per forward and pictures per second of the running service."""
    if scrape:
        top_command.show(lambda: scrape, interval, once=once)
        return
    serving.prepare_to_join(config)
    # Ray takes a second to import; the other commands can do without.
    from deployments import nodes  # noqa: PLC0415

    nodes.join(address)
    top_command.show(nodes.metrics_pages, interval, once=once)


@app.command("config")
def serve_config(
    config: ConfigPath = DEFAULT_CONFIG,
    parts: Annotated[
        bool, typer.Option("--parts", help="as `deploy` sends it: an application for each part")
    ] = False,
) -> None:
    """Print the Serve config file with an application for each model added at run time."""
    config_command.show(config, is_parted=parts)


@app.command()
def deploy(
    config: Annotated[Path, typer.Argument(help="Serve config file")],
    address: Annotated[
        str, typer.Option(envvar="RAY_DASHBOARD_ADDRESS", help="of the Ray dashboard")
    ] = "http://127.0.0.1:8265",
    timeout_s: Annotated[
        float, typer.Option(min=1, help="seconds until each step of it has to run")
    ] = 1800.0,
) -> None:
    """Bring a config file to a running cluster: only what it changes restarts, without a pause."""
    deploy_command.deploy(config, address, timeout_s)


for group in (db.app, jobs.app, keys.app, webhooks.app):
    app.add_typer(group)


@app.command("usage")
def show_usage(
    config: ConfigPath = DEFAULT_CONFIG,
    month: Annotated[str | None, typer.Option(help="such as 2026-11; none: this one")] = None,
    by: Annotated[usage.By, typer.Option(help="what to add up by")] = usage.By.KEY,
    csv: Annotated[bool, typer.Option("--csv", help="every day, key and model, as CSV")] = False,
) -> None:
    """Show what jobs of a month cost: pictures, row-steps, seconds of devices, bytes stored."""
    usage.show(config, month, by, as_csv=csv)


@app.command("audit")
def show_audit(
    config: ConfigPath = DEFAULT_CONFIG,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="most rows")] = 50,
    subject: Annotated[str | None, typer.Option(help="only what was done to this id")] = None,
) -> None:
    """Show what operators did to keys, models, jobs and messages, the latest first."""
    usage.show_audit(config, limit, subject)


models_app = typer.Typer(
    name="models", no_args_is_help=True, help="The catalogue of a deployment, also at run time."
)
app.add_typer(models_app)


@models_app.command("add")
def models_add(
    file: Annotated[Path, typer.Argument(help="entry, as in the catalogue's folder")],
    config: ConfigPath = DEFAULT_CONFIG,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="do not look at the weights from this machine")
    ] = False,
) -> None:
    """Add an entry while the service runs, or replace the one added under its id."""
    models.add(config, file, is_checked=not unchecked)


@models_app.command("remove")
def models_remove(entry_id: str, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Remove an entry that was added at run time."""
    models.remove(config, entry_id)


@models_app.command("list")
def models_list(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """List all models, LoRAs, VAEs and embeddings."""
    models.list_models(config)


@models_app.command("verify")
def models_verify(
    entry_id: Annotated[str | None, typer.Argument(help="one entry; none: all")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Fetch, hash and judge weights; for one entry, print its manifest."""
    models.verify_models(config, entry_id)


@models_app.command("scan")
def models_scan(
    folder: Annotated[Path, typer.Argument(help="of downloaded files, at any depth")],
    config: ConfigPath = DEFAULT_CONFIG,
    add: Annotated[
        bool, typer.Option("--add", help="add all good ones to the running service")
    ] = False,
    write: Annotated[
        Path | None, typer.Option(help="folder for an entry's file of each good one")
    ] = None,
    dtype: Annotated[
        scan.Dtype | None,
        typer.Option(help="of the models that are found; none: by their category"),
    ] = None,
) -> None:
    """Show what the files of a folder are, and have those served that can be."""
    scan.scan_folder(config, folder, dtype, is_added=add, target=write)


@models_app.command("convert")
def models_convert(
    files: Annotated[list[Path], typer.Argument(help=".ckpt, .pt, .pth and .bin")],
    out: Annotated[
        Path | None, typer.Option(help="folder for the results; beside each file without it")
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=1, help="seconds for each file")] = 600.0,
) -> None:
    """Make safetensors of pickles, in a process of its own that runs nothing of them."""
    convert.convert_files(files, out, timeout_s)


@models_app.command("reload")
def models_reload(
    model_id: str,
    revision: Annotated[
        str | None, typer.Option(help="of a hub source; left out: what is wanted already")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Reload the weights of a model on all its replicas."""
    reload.reload(config, model_id, revision)


@models_app.command("canary")
def models_canary(
    model_id: str,
    file: Annotated[
        Path | None, typer.Argument(help="entry with the model's id and other weights")
    ] = None,
    share: Annotated[
        float | None, typer.Option(min=0, max=100, help="per cent of the model's calls")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="do not look at the weights from this machine")
    ] = False,
) -> None:
    """Try other weights on a share of a model's calls; without FILE and share, show how they do."""
    canary.try_out(config, model_id, file, share, is_checked=not unchecked)


@models_app.command("promote")
def models_promote(model_id: str, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Put a model's canary in its place."""
    canary.promote(config, model_id)


@models_app.command("rollback")
def models_rollback(model_id: str, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Remove a model's canary; its open jobs go to the model."""
    canary.roll_back(config, model_id)


@models_app.command("status")
def models_status(model_id: str, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Show which weights the replicas of a model serve, and why one refused others."""
    reload.status(config, model_id)


def _at_hand(config: Path) -> Path:
    """Return the config file; in a folder that has none, the demo's is written first."""
    if config == DEFAULT_CONFIG and not config.exists():
        init_command.write(Path())
        typer.echo(f"wrote {config} for the demo models, as `dreamserve init` does", err=True)
    return config


def main() -> None:
    """Entry point of the `dreamserve` script."""
    try:
        app()
    except (ValueError, OSError, errors.DreamserveError) as exc:  # say what to change
        for line in fault.lines(exc):
            typer.echo(f"dreamserve: {line}", err=True)
        raise SystemExit(2) from exc
