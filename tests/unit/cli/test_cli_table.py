"""What `grep` and files get of the commands' tables, and what a terminal shows."""

import re

import pytest
from rich.table import Table

from serve_app.cli.table import show_table

PATH = "/models/" + "loras/" * 40 + "ink.safetensors"


@pytest.fixture
def table():
    table = Table("id", "source")
    table.add_row("msg_JO82PS3y5osWn6hwOKagPe0o", PATH)
    return table


def test_a_row_is_one_line_in_a_pipe(table, capsys):
    show_table(table)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "msg_" in line]
    assert "msg_JO82PS3y5osWn6hwOKagPe0o" in line
    assert PATH in line


def test_nothing_is_cut_off_at_a_narrow_terminal(table, capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "40")
    show_table(table)
    lines = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) == 40
    rows = [line.split("\u2502") for line in lines if line.startswith("\u2502")]
    shown = ["".join(row[column].strip() for row in rows) for column in (1, 2)]
    assert shown == ["msg_JO82PS3y5osWn6hwOKagPe0o", PATH]
