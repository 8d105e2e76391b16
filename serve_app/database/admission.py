"""What decides whether a job is accepted, as SQL on the connection of the caller.

Asked twice: without a lock, so that a refusal never waits for writers, and again in the transaction
that adds the job, where the answer holds.
"""

from sqlalchemy import ColumnElement, Connection, Row, bindparam, func, select, update

from serve_app import errors
from serve_app.database import codec
from serve_app.database.connection import Now
from serve_app.database.schema import api_keys, jobs, usage
from serve_app.database.usage import days_of, month_of
from serve_app.jobs.protocol import Idempotency
from serve_app.jobs.rules import KeyRules, KeyUse
from serve_app.types import JobRequest

__all__ = ["check_key", "check_room", "find_repeated", "forget"]

_NUM_OPEN = select(func.count()).where(jobs.c.finished_at.is_(None))
# Built once, as in `statements`.
_MINE = jobs.c.key_id == bindparam("key_id")
_RULES = select(api_keys.c.rules).where(api_keys.c.id == bindparam("key_id"))
_MY_OPEN = select(
    func.count().label("num_open"),
    func.coalesce(func.sum(jobs.c.samples), 0).label("samples"),
    Now().label("now"),
).where(jobs.c.finished_at.is_(None), _MINE)
_MY_NTH = (
    select(Now() - jobs.c.created_at)
    .where(_MINE)
    .order_by(jobs.c.created_at.desc())
    .offset(bindparam("skipped"))
    .limit(1)
)
_MY_PICTURES = select(func.sum(usage.c.pictures)).where(
    usage.c.key_id == bindparam("key_id"),
    usage.c.day.between(bindparam("first"), bindparam("last")),
)


def find_repeated(
    connection: Connection, key_id: str, idempotency: Idempotency | None
) -> Row[tuple[object, ...]] | None:
    """Find the job that came first with this idempotency key, if it is not too long ago.

    Raises:
        errors.InvalidRequest: that one asked for something else.
    """
    if idempotency is None:
        return None
    is_recent = jobs.c.created_at > Now() - idempotency.ttl_s
    find = select(jobs).where(_named(key_id, idempotency), is_recent)
    row = connection.execute(find).one_or_none()
    if row is not None:
        idempotency.check(row.idempotency_digest)
    return row


def forget(connection: Connection, key_id: str, idempotency: Idempotency | None) -> None:
    """Free an idempotency key whose time is over."""
    if idempotency is None:
        return
    values = {"idempotency_key": None, "idempotency_digest": None}
    connection.execute(update(jobs).where(_named(key_id, idempotency)).values(values))


def check_room(connection: Connection, key_id: str, max_open: int, guests: int) -> None:
    """Refuse what is too much for all together.

    guests: jobs beyond `max_open`, for keys that have none open.

    Raises:
        errors.Overloaded: too many jobs are open.
    """
    num_open = connection.scalar(_NUM_OPEN) or 0
    if num_open < max_open:
        return
    if num_open >= max_open + guests or connection.execute(_MY_OPEN, {"key_id": key_id}).one()[0]:
        raise errors.Overloaded()


def check_key(
    connection: Connection, key_id: str, defaults: KeyRules, request: JobRequest | None
) -> KeyRules:
    """Refuse what a key may not ask for, by its own rules and these where it has none.

    Returns these rules.

    request: None: it is not known yet, and asks for one picture at least.

    Raises as `KeyRules.check_use` and `KeyRules.check_request` do.
    """
    own = connection.scalar(_RULES, {"key_id": key_id})
    rules = (KeyRules() if own is None else codec.load(KeyRules, own)).over(defaults)
    if request is not None:
        rules.check_request(request)
    samples = 1 if request is None else request.spec.samples
    rules.check_use(_use(connection, key_id, rules), samples)
    return rules


def _use(connection: Connection, key_id: str, rules: KeyRules) -> KeyUse:
    """Count what the rules bound, and nothing else."""
    mine: dict[str, object] = {"key_id": key_id}
    num_open = samples = pictures = 0
    if rules.max_open is not None or rules.monthly_pictures is not None:
        row = connection.execute(_MY_OPEN, mine).one()
        num_open, samples = row.num_open, row.samples
        if rules.monthly_pictures is not None:
            first, last = days_of(month_of(row.now))
            days = {"first": first, "last": last}
            pictures = connection.scalar(_MY_PICTURES, mine | days) or 0
    age_s: float | None = None
    if rules.requests_per_minute is not None:
        skipped = {"skipped": rules.requests_per_minute - 1}
        age_s = connection.scalar(_MY_NTH, mine | skipped)
    return KeyUse(num_open, int(pictures) + samples, age_s)


def _named(key_id: str, idempotency: Idempotency) -> ColumnElement[bool]:
    return (jobs.c.key_id == key_id) & (jobs.c.idempotency_key == idempotency.key)
