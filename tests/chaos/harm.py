"""What a chaos test does to a service while it works, and what it sees of its database."""

import asyncio
import collections
import random
import sqlite3
import time

import psutil
import psycopg

from tests.fake_app import FakeApp

__all__ = ["Havoc", "PostgresView", "SqliteView"]

VICTIMS = ("Ingress", "Generator", "Preprocess", "Upload", "Janitor")
_JOBS = "SELECT id, state, attempts, lease_until, created_at, finished_at FROM jobs"
_OUTBOX = "SELECT job_id, state, attempts FROM outbox"


class SqliteView:
    """Reads the file beside the service; harms it by keeping its write lock."""

    def __init__(self, path, lock_s: float):
        self._path = path
        self._lock_s = lock_s

    def jobs(self):
        return self._rows(_JOBS)

    def outbox(self):
        return self._rows(_OUTBOX)

    def harm(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=30)
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(self._lock_s)
        connection.execute("ROLLBACK")
        connection.close()

    def _rows(self, query):
        connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=30)
        rows = connection.execute(query).fetchall()
        connection.close()
        return rows


class PostgresView:
    """Reads the server beside the service; harms it by ending every connection."""

    def __init__(self, url):
        self._url = url

    def jobs(self):
        return self._rows(_JOBS)

    def outbox(self):
        return self._rows(_OUTBOX)

    def harm(self) -> None:
        with psycopg.connect(self._url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def _rows(self, query):
        for _ in range(3):  # the harm of a moment ago may have met this connection too
            try:
                with psycopg.connect(self._url) as connection:
                    return connection.execute(query).fetchall()
            except psycopg.OperationalError as exc:
                last = exc
        raise last


class Havoc:
    """Kills a replica or harms the database every `pause_s`, and watches the leases meanwhile.

    Any replica may go at any time, also the last one of its deployment.

    A job is stuck while its lease is over and nobody has taken it up: `worst_stuck_s`.
    """

    def __init__(self, app: FakeApp, view, pause_s: tuple[float, float], seed: int):
        self.done = collections.Counter()
        self.worst_stuck_s = 0.0
        self.last_harm_at = 0.0
        self._app = app
        self._view = view
        self._pause_s = pause_s
        self._random = random.Random(seed)

    async def run(self) -> None:
        """Do harm until cancelled; every kind of it comes once in each round."""
        while True:
            kinds = [*VICTIMS, "database"]
            self._random.shuffle(kinds)
            for kind in kinds:
                await asyncio.sleep(self._random.uniform(*self._pause_s))
                if await asyncio.to_thread(self._harm, kind):
                    self.done[kind] += 1
                    self.last_harm_at = time.time()

    async def watch(self) -> None:
        """Note the longest time that a job was left by its driver, until cancelled."""
        while True:
            now = time.time()
            for _id, state, _attempts, lease_until, *_times in await asyncio.to_thread(
                self._view.jobs
            ):
                if state == "processing" and lease_until is not None:
                    self.worst_stuck_s = max(self.worst_stuck_s, now - lease_until)
            await asyncio.sleep(0.5)

    def _harm(self, kind: str) -> bool:
        if kind == "database":
            self._view.harm()
            return True
        replicas = self._app.replicas(kind)
        if not replicas:
            return False
        try:
            self._random.choice(replicas).kill()
        except psutil.NoSuchProcess:
            return False
        return True
