"""Tables of the commands: nothing of them is cut off, at a terminal or in a pipe."""

from rich.console import Console
from rich.table import Table

__all__ = ["show_table"]

_UNBOUNDED = 10_000  # characters: no line of a table is as long


def show_table(table: Table) -> None:
    """Print it: folded into the terminal, or each row in one line for `grep` and files."""
    for column in table.columns:
        column.overflow = "fold"
    console = Console()
    if not console.is_terminal:
        console.width = _UNBOUNDED
    console.print(table)
