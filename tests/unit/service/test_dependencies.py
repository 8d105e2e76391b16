"""Which parts answer, and for how long one look is good."""

from types import SimpleNamespace

import pytest

from serve_app import errors
from serve_app.service import dependencies
from serve_app.service.dependencies import Dependencies
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore
from serve_app.testing.storage import MemoryStore

QUESTIONS = {"database": "oldest_open_s", "storage": "get", "safety": "check_safety_runs"}


class Scene:
    """Three parts, each of which may be away, and a clock."""

    def __init__(self, monkeypatch):
        self.now, self.away, self.asked = 1000.0, None, []
        parts = MemoryJobStore(), MemoryStore(), FakeGraph()
        for part, (name, question) in zip(parts, QUESTIONS.items(), strict=True):
            monkeypatch.setattr(part, question, self._guarded(name, getattr(part, question)))
        monkeypatch.setattr(dependencies, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.dependencies = Dependencies(*parts)

    def _guarded(self, name, question):
        async def ask(*given):
            self.asked.append(name)
            if name == self.away:
                raise errors.StorageUnavailable("down")
            return await question(*given)

        return ask


@pytest.fixture
def scene(monkeypatch):
    return Scene(monkeypatch)


@pytest.mark.parametrize("away", [*QUESTIONS, None])
async def test_part_that_does_not_answer_is_told_by_its_name(scene, away):
    scene.away = away
    assert await scene.dependencies.look() == {name: name != away for name in QUESTIONS}


async def test_look_is_good_for_five_seconds(scene):
    await scene.dependencies.look()
    scene.away = "storage"
    scene.now += 4.9
    assert all((await scene.dependencies.look()).values())
    assert sorted(scene.asked) == sorted(QUESTIONS)
    scene.now += 0.1
    assert not (await scene.dependencies.look())["storage"]
    scene.away = None
    scene.now += 5
    assert (await scene.dependencies.look())["storage"]
