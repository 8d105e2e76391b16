"""`dreamserve top`: what the service does right now, as a table in the terminal.

The figures are those that Prometheus gets: every node's agent is asked for its metrics page.
"""

import time
from collections.abc import Callable, Sequence

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serve_app.telemetry import scrape
from serve_app.telemetry.overview import Overview

__all__ = ["render", "show"]


def show(find_pages: Callable[[], Sequence[str]], interval_s: float, *, once: bool) -> None:
    """Show until Ctrl-C, or once; exit code 1 when no node answers that one time.

    Args:
        find_pages: gives the addresses of all metrics pages; asked at each look.
        interval_s: seconds between looks.
        once: print and return.
    """
    console = Console()

    def look() -> tuple[Overview, int]:
        return scrape.look(find_pages())

    if once:
        seen, silent = look()
        console.print(render(seen, silent))
        raise typer.Exit(0 if seen.nodes else 1)
    try:
        with Live(render(*look()), console=console, auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(interval_s)
                live.update(render(*look()), refresh=True)
    except KeyboardInterrupt:
        pass


def render(seen: Overview, silent: int = 0) -> Group:
    """Draw an overview; `silent` nodes did not answer."""
    head = Text.assemble(
        ("dreamserve ", "bold"),
        (seen.status, "green" if seen.status == "running" else "red"),
        f"   {seen.pictures_per_s:.2f} pictures/s   {seen.open_jobs} open jobs",
        f", oldest {seen.oldest_job_s:.0f} s" if seen.open_jobs else "",
        (f"   silent nodes: {silent}", "red") if silent else "",
    )
    return Group(head, "", _models(seen), "", _deployments(seen), "", _nodes(seen))


def _models(seen: Overview) -> Table:
    # Short, so that eleven columns fit into 80 characters; docs/deployment.md explains them.
    table = _table(
        *("model", "repl", "jobs", "wait", "work", "rows"),
        *("steps/s", "pics/s", "step ms", "made", "failed"),
    )
    for model in seen.models:
        table.add_row(
            model.model_id,
            str(model.replicas),
            str(model.open_jobs),
            str(model.waiting),
            str(model.at_work),
            f"{model.rows_per_forward:.1f}",
            f"{model.steps_per_s:.1f}",
            f"{model.pictures_per_s:.2f}",
            f"{model.tick_s * 1000:.0f}",
            str(model.made),
            Text(str(model.failed), "red" if model.failed else ""),
        )
    return table


def _deployments(seen: Overview) -> Table:
    table = _table("deployment", "replicas", "wanted", "at work", "queued")
    for deployment in seen.deployments:
        lacks = deployment.healthy < deployment.wanted
        table.add_row(
            deployment.name,
            Text(str(deployment.healthy), "red" if lacks else ""),
            str(deployment.wanted),
            str(deployment.at_work),
            str(deployment.queued),
        )
    return table


def _nodes(seen: Overview) -> Table:
    table = _table("node", "CPU", "memory", "GPU", "disk")
    for node in seen.nodes:
        gpu = "-" if node.gpu is None else f"{node.gpu:.0%}"
        table.add_row(
            node.address, f"{node.cpu:.0%}", f"{node.memory:.0%}", gpu, f"{node.disk:.0%}"
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column(first, min_width=16, max_width=26, no_wrap=True)
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    return table
