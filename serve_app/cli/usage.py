"""`dreamserve usage` and `dreamserve audit`: what was used, by whom, and what operators did."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from rich.table import Table

from serve_app.cli.database import read_config, with_database
from serve_app.cli.table import show_table
from serve_app.database.audit import SqlAuditLog
from serve_app.database.connection import Database
from serve_app.database.keys import SqlKeyStore
from serve_app.database.usage import SqlUsageStore
from serve_app.jobs.protocol import Usage

__all__ = ["By", "show", "show_audit"]

_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_SUMS = [name for name in Usage.model_fields if name not in ("day", "key_id", "model_id")]


class By(StrEnum):
    """What a row of the table is about."""

    KEY = "key"
    MODEL = "model"
    DAY = "day"


_NAMED: dict[By, Callable[[Usage], str]] = {
    By.KEY: lambda row: row.key_id,
    By.MODEL: lambda row: row.model_id,
    By.DAY: lambda row: row.day,
}


def show(config: Path, month: str | None, by: By, *, as_csv: bool) -> None:
    """Print what a month cost: a table of sums, or every row as CSV."""
    if month is not None and not _MONTH.fullmatch(month):
        raise ValueError(f"{month} is not a month; write it as 2026-11")

    async def read(database: Database) -> tuple[str, list[Usage], dict[str, str]]:
        store = SqlUsageStore(database)
        asked = month or await store.this_month()
        names = {key.id: key.name for key in await SqlKeyStore(database).list_keys()}
        return asked, await store.usage(asked), names

    asked, rows, names = with_database(read_config(config), read)
    if as_csv:
        _write_csv(rows, names)
        return
    table = Table(by, *_SUMS, title=f"{asked}, in UTC")
    keys = sorted({_NAMED[by](row) for row in rows})
    for key in keys:
        name = names.get(key, key) if by is By.KEY else key
        table.add_row(name, *_sums(row for row in rows if _NAMED[by](row) == key))
    table.add_section()
    table.add_row("all", *_sums(rows))
    show_table(table)


def show_audit(config: Path, limit: int, subject: str | None) -> None:
    """Print what operators did, the latest first."""
    table = Table("time (UTC)", "who", "did", "to", "detail")
    deeds = with_database(
        read_config(config), lambda database: SqlAuditLog(database).deeds(limit, subject)
    )
    for deed in deeds:
        when = f"{datetime.fromtimestamp(deed.at, UTC):%Y-%m-%d %H:%M:%S}"
        detail = json.dumps(deed.detail) if deed.detail else ""
        table.add_row(when, deed.actor, deed.action, deed.subject, detail)
    show_table(table)


def _write_csv(rows: Iterable[Usage], names: dict[str, str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["day", "key_id", "key_name", "model_id", *_SUMS])
    for row in rows:
        named = (row.day, row.key_id, names.get(row.key_id, ""), row.model_id)
        writer.writerow([*named, *(getattr(row, name) for name in _SUMS)])


def _sums(rows: Iterable[Usage]) -> list[str]:
    known = list(rows)
    totals = {name: sum(getattr(row, name) for row in known) for name in _SUMS}
    return [
        f"{total:,.1f}" if name == "device_s" else f"{total:,}" for name, total in totals.items()
    ]
