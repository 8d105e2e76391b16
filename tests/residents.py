"""A `Resident` over files that tests rewrite, with painters whose pictures show their weights."""

import asyncio
import threading
from functools import partial

from serve_app.pipelines import FakePainter
from serve_app.replica.weights import Found
from tests.builders import spec

__all__ = ["MODEL", "Files", "colour", "colour_of", "report_of", "until"]

MODEL = "tiny"


class Files:
    """Weights by revision; what is in `broken` cannot be loaded, what is not in `files` found.

    A load waits for `go`; what was loaded and what is open is in `loads` and `painters`.
    """

    def __init__(self):
        self.files = {None: "first"}
        self.broken = {}
        self.loads = []
        self.painters = []
        self.go = threading.Event()
        self.go.set()
        self.began = threading.Event()

    def hold(self):
        """Let the next load wait for `go`."""
        self.began.clear()
        self.go.clear()

    def find(self, desired):
        digest = self.files[desired.revision]
        return Found(desired, digest, partial(self.check, digest), partial(self.load, digest))

    def check(self, digest):
        if digest == "truncated":
            raise OSError("not fully covered")

    def load(self, digest):
        self.began.set()
        assert self.go.wait(10)
        self.loads.append(digest)
        if failure := self.broken.get(digest):
            raise failure
        self.painters.append(FakePainter(step_s=0.001, mark=digest))
        return self.painters[-1]

    def tidy(self):
        pass

    @property
    def num_open(self):
        return sum(not painter._is_closed for painter in self.painters)


async def colour(resident, steps=1):
    """The pixels, and the version of the weights that says it made them."""
    pictures = await resident.paint(1, spec(steps=steps), None)
    return pictures.pictures[0].data, pictures.ran.get("generation", 0)


async def colour_of(digest):
    return (await FakePainter(mark=digest).paint(1, spec(steps=1), None)).pictures[0].data


async def report_of(store, replica="a"):
    reports = await store.reports(MODEL, 100)
    return next(report for report in reports if report.replica_id == replica)


async def until(is_so):
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.001)
