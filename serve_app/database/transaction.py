"""`SqlStore`: methods that are one transaction each, written as if their connection were given.

`@reads()` and `@writes()` make of `def get(self, connection, job_id)` the `await store.get(job_id)`
of a protocol.
"""

import functools
from collections.abc import Callable, Coroutine
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from serve_app.database.connection import Database

__all__ = ["SqlStore", "reads", "writes"]

P = ParamSpec("P")
Result = TypeVar("Result")
Store = TypeVar("Store", bound="SqlStore")
Work = Callable[Concatenate[Store, Connection, P], Result]
Method = Callable[Concatenate[Store, P], Coroutine[None, None, Result]]


class SqlStore:
    """A store on the connections of a database, its own or another store's."""

    def __init__(self, database: Database) -> None:
        self.database = database


def reads() -> Callable[[Work[Store, P, Result]], Method[Store, P, Result]]:
    """Run a method on a connection to read from; raises what `Database.read` does."""

    def wrap(work: Work[Store, P, Result]) -> Method[Store, P, Result]:
        @functools.wraps(work)
        async def method(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> Result:
            return await self.database.read(lambda link: work(self, link, *args, **kwargs))

        return method

    return wrap


def writes(
    *, is_durable: bool = True
) -> Callable[[Work[Store, P, Result]], Method[Store, P, Result]]:
    """Run a method in a transaction; arguments and errors of `Database.write`."""

    def wrap(work: Work[Store, P, Result]) -> Method[Store, P, Result]:
        @functools.wraps(work)
        async def method(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> Result:
            return await self.database.write(
                lambda link: work(self, link, *args, **kwargs), is_durable=is_durable
            )

        return method

    return wrap
