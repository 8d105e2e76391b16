"""`SqlModelStore`: run-time entries, wanted weights and reports in SQLite or PostgreSQL.

Every change is one upsert, so processes on many machines need no lock between them. Entries change
together with a counter, whose row a transaction holds until it commits: who has seen a version has
seen every change up to it.
"""

from collections.abc import Sequence

import structlog
from sqlalchemy import Connection, delete, or_, select, update

from serve_app.database import canary, codec
from serve_app.database.audit import note
from serve_app.database.connection import Now
from serve_app.database.schema import (
    catalogue_entries,
    catalogue_version,
    model_generations,
    model_reports,
    model_turns,
)
from serve_app.database.transaction import SqlStore, reads, writes
from serve_app.models.canary import Canary, Scores
from serve_app.models.entry import Entry, ModelEntry
from serve_app.models.protocol import Desired, ReplicaReport

__all__ = ["SqlModelStore"]

_log = structlog.get_logger()
_CHANGE_LOCK = 0x6472_6561_6D02  # "dream" 02; any number that only this use has
_ONLY = 1  # the key of the one row of `catalogue_version`
_WANTED = (
    model_generations.c.model_id,
    model_generations.c.generation.label("weights_version"),
    model_generations.c.revision,
)
_KEPT_S = 86_400.0  # replicas that said nothing for a day are gone


class SqlModelStore(SqlStore):
    """Implements `models.protocol.ModelStore` on the connections of a job store or its own."""

    @reads()
    def entries(self, connection: Connection) -> list[Entry]:
        """List the run-time entries; see the protocol."""
        every = select(catalogue_entries.c.id, catalogue_entries.c.entry).order_by(
            catalogue_entries.c.id
        )
        rows = connection.execute(every).all()
        found: list[Entry] = []
        for row in rows:
            try:
                found.append(codec.load_entry(row.entry))
            except ValueError:  # another version wrote it; the others still serve
                _log.exception("entry_unreadable", entry_id=row.id)
        return found

    @reads()
    def version(self, connection: Connection) -> int:
        """Return the number of changes; see the protocol."""
        return connection.scalar(select(catalogue_version.c.version)) or 0

    @writes()
    def put(self, connection: Connection, entry: Entry) -> None:
        """Add or replace an entry; see the protocol."""
        row = {"id": entry.id, "entry": codec.dump_entry(entry), "changed_at": Now()}
        self._exclude_others(connection)
        self._grow(connection)
        connection.execute(self.database.upsert(catalogue_entries, row))
        _forget_revision(connection, entry.id)
        note(connection, "model.add", entry.id, {"source": str(entry.source)})

    @writes()
    def remove(self, connection: Connection, entry_id: str) -> bool:
        """Remove an entry; see the protocol."""
        gone = delete(catalogue_entries).where(
            catalogue_entries.c.id == codec.check_text("id", entry_id)
        )
        self._exclude_others(connection)
        removed = connection.scalar(gone.returning(catalogue_entries.c.id))
        if removed is not None:
            self._grow(connection)
            canary.end(connection, entry_id)
            note(connection, "model.remove", entry_id)
        return removed is not None

    @reads()
    def canaries(self, connection: Connection) -> list[Canary]:
        """List the canaries; see the protocol."""
        return canary.find_all(connection)

    @writes()
    def begin_canary(self, connection: Connection, entry: ModelEntry, share: float) -> None:
        """Send a share of a model's calls to another revision; see the protocol."""
        self._exclude_others(connection)
        self._grow(connection)
        canary.begin(self.database, connection, entry, share)

    @writes()
    def share_canary(self, connection: Connection, model_id: str, share: float) -> bool:
        """Change the share of a canary; see the protocol."""
        self._exclude_others(connection)
        is_there = canary.share(connection, codec.check_text("model_id", model_id), share)
        if is_there:
            self._grow(connection)
        return is_there

    @writes()
    def promote_canary(self, connection: Connection, model_id: str) -> bool:
        """Put a canary in place of the run-time entry; see the protocol."""
        self._exclude_others(connection)
        entry = canary.end(connection, codec.check_text("model_id", model_id))
        if entry is None:
            return False
        self._grow(connection)
        row = {"id": entry.id, "entry": codec.dump_entry(entry), "changed_at": Now()}
        connection.execute(self.database.upsert(catalogue_entries, row))
        _forget_revision(connection, entry.id)
        note(connection, "model.promote", entry.id, {"source": str(entry.source)})
        return True

    @writes()
    def end_canary(self, connection: Connection, model_id: str) -> bool:
        """Remove a canary; see the protocol."""
        self._exclude_others(connection)
        is_ended = canary.end(connection, codec.check_text("model_id", model_id)) is not None
        if is_ended:
            self._grow(connection)
            note(connection, "model.rollback", model_id)
        return is_ended

    @reads()
    def scores(self, connection: Connection, model_id: str, since: float) -> Scores:
        """Compare a model with its canary; see the protocol."""
        return canary.scores(connection, codec.check_text("model_id", model_id), since)

    @reads()
    def desired(self, connection: Connection, model_ids: Sequence[str]) -> dict[str, Desired]:
        """Return what models should serve; see the protocol."""
        ids = [codec.check_text("model_id", model_id) for model_id in model_ids]
        wanted = select(*_WANTED).where(model_generations.c.model_id.in_(ids))
        rows = connection.execute(wanted).all()
        known = {row.model_id: Desired.model_validate(dict(row._mapping)) for row in rows}
        return {model_id: known.get(model_id, Desired(model_id=model_id)) for model_id in ids}

    @writes()
    def advance(
        self,
        connection: Connection,
        model_id: str,
        revision: str | None = None,
        mark: str | None = None,
    ) -> Desired:
        """Want the next version of the weights; see the protocol."""
        row = {
            "model_id": codec.check_text("model_id", model_id),
            "generation": 1,
            "revision": None if revision is None else codec.check_text("revision", revision),
            "mark": mark,
        }
        table = model_generations.c
        change = {
            "generation": table.generation + 1,
            "revision": table.revision if revision is None else revision,
            "mark": table.mark if mark is None else mark,
        }
        is_new = None if mark is None else table.mark.is_distinct_from(mark)
        want = self.database.upsert(model_generations, row, change, is_new).returning(*_WANTED)
        wanted = connection.execute(want).one_or_none()
        if wanted is None:
            here = select(*_WANTED).where(table.model_id == model_id)
            wanted = connection.execute(here).one()
        else:
            version = {"generation": wanted.weights_version, "revision": wanted.revision}
            note(connection, "model.reload", model_id, version)
        return Desired.model_validate(dict(wanted._mapping))

    @writes(is_durable=False)
    def report(self, connection: Connection, report: ReplicaReport) -> None:
        """Keep what a replica says; see the protocol."""
        row = {
            "model_id": codec.check_text("model_id", report.model_id),
            "replica_id": codec.check_text("replica_id", report.replica_id),
            "report": codec.dump(report),
            "reported_at": Now(),
        }
        old = delete(model_reports).where(model_reports.c.reported_at < Now() - _KEPT_S)
        connection.execute(old)
        connection.execute(self.database.upsert(model_reports, row))

    @reads()
    def reports(
        self, connection: Connection, model_id: str, max_age_s: float
    ) -> list[ReplicaReport]:
        """List what the replicas of a model said; see the protocol."""
        table = model_reports.c
        fresh = (
            select(table.report, table.reported_at)
            .where(table.model_id == codec.check_text("model_id", model_id))
            .where(table.reported_at >= Now() - max_age_s)
            .order_by(table.replica_id)
        )
        rows = connection.execute(fresh).all()
        return [
            codec.load(ReplicaReport, row.report).model_copy(
                update={"reported_at": row.reported_at}
            )
            for row in rows
        ]

    @writes(is_durable=False)
    def take_turn(self, connection: Connection, model_id: str, owner: str, lease_s: float) -> bool:
        """Take or renew the turn; see the protocol."""
        row = {
            "model_id": codec.check_text("model_id", model_id),
            "owner": codec.check_text("owner", owner),
            "lease_until": Now() + lease_s,
        }
        is_free = or_(model_turns.c.owner == owner, model_turns.c.lease_until <= Now())
        take = self.database.upsert(model_turns, row, where=is_free)
        return connection.scalar(take.returning(model_turns.c.owner)) is not None

    @writes(is_durable=False)
    def end_turn(self, connection: Connection, model_id: str, owner: str) -> None:
        """Release the turn; see the protocol."""
        end = delete(model_turns).where(
            model_turns.c.model_id == codec.check_text("model_id", model_id),
            model_turns.c.owner == codec.check_text("owner", owner),
        )
        connection.execute(end)

    def _exclude_others(self, connection: Connection) -> None:
        """Be the only one who changes entries and their version, until the transaction ends.

        An entry's row and the version's are locked in either order; two transactions that each
        hold one of them would wait for each other.
        """
        self.database.lock(connection, _CHANGE_LOCK)

    def _grow(self, connection: Connection) -> None:
        """Count a change; other changes wait for this transaction from here on."""
        row = {"id": _ONLY, "version": 1}
        change = {"version": catalogue_version.c.version + 1}
        connection.execute(self.database.upsert(catalogue_version, row, change))


def _forget_revision(connection: Connection, model_id: str) -> None:
    """Forget which revision was asked for: it was one of the entry before, and this one says its.

    The version of the weights stays, for it only grows.
    """
    table = model_generations.c
    connection.execute(
        update(model_generations).where(table.model_id == model_id).values(revision=None)
    )
