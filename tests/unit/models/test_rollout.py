"""The order of a deploy, and the way back."""

import pytest

from serve_app.models.rollout import Patience, RolloutFailed, Running, roll_out


class Serve:
    """Starts everything one look after it was put; what is `broken` fails."""

    def __init__(self, *names, broken=(), stuck=()):
        self.broken = broken
        self.stuck = stuck
        self.puts = []
        self._now = {name: (f"{name}-0", "RUNNING") for name in names}

    def look(self):
        found = {
            name: Running(status, ("", self._says(args)), {"name": name, "args": args})
            for name, (args, status) in self._now.items()
        }
        for name, (args, status) in self._now.items():
            if status == "DEPLOYING" and args not in self.stuck:
                self._now[name] = (args, "DEPLOY_FAILED" if args in self.broken else "RUNNING")
        return found

    def put(self, file):
        wanted = {one["name"]: one["args"] for one in file["applications"]}
        self.puts.append(wanted)
        self._now = {
            name: self._now[name]
            if name in self._now and self._now[name][0] == args
            else (args, "DEPLOYING")
            for name, args in wanted.items()
        }

    def _says(self, args):
        return (
            "Traceback\n  somewhere\nValueError: no such weights\n" if args in self.broken else ""
        )


def file(*names, version=1):
    applications = [{"name": name, "args": f"{name}-{version}"} for name in names]
    return {"proxy_location": "HeadOnly", "applications": applications}


def deploy(target, wanted, timeout_s=60.0):
    said, now = [], [0.0]

    def sleep(s):
        now[0] += s

    patience = Patience(timeout_s, sleep=sleep, clock=lambda: now[0])
    try:
        roll_out(target, wanted, said.append, patience)
    finally:
        target.said = said


def test_first_deploy_puts_all_at_once():
    target = Serve()
    deploy(target, file("service", "model-a"))
    assert target.puts == [{"service": "service-1", "model-a": "model-a-1"}]


def test_parts_come_before_their_caller_and_go_after_it():
    target = Serve("service", "model-a", "model-old")
    deploy(target, file("service", "model-a", "model-new"))
    new = {"model-a": "model-a-1", "model-new": "model-new-1"}
    assert target.puts == [
        {"service": "service-0", **new, "model-old": "model-old-0"},
        {"service": "service-1", **new},
    ]


@pytest.mark.parametrize("broken", ["model-a-1", "service-1"])
def test_what_ran_before_comes_back_when_a_part_does_not_start(broken):
    target = Serve("service", "model-a", broken=[broken])
    with pytest.raises(RolloutFailed, match=r"did not start: ValueError: no such weights$"):
        deploy(target, file("service", "model-a"))
    assert target.puts[-1] == {"service": "service-0", "model-a": "model-a-0"}
    assert {one.status for one in target.look().values()} == {"RUNNING"}
    assert "going back to what ran before" in target.said


def test_first_deploy_that_fails_has_nothing_to_go_back_to():
    target = Serve(broken=["service-1"])
    with pytest.raises(RolloutFailed):
        deploy(target, file("service"))
    assert len(target.puts) == 1


def test_what_finds_no_room_is_given_up_in_time():
    target = Serve("service", "model-a", stuck=["model-a-1"])
    with pytest.raises(RolloutFailed, match=r"after 9 s these do not run: \['model-a'\]"):
        deploy(target, file("service", "model-a"), timeout_s=9)
    assert target.puts[-1]["model-a"] == "model-a-0"


def test_news_are_told_once():
    target = Serve("service", "model-a")
    deploy(target, file("service", "model-a"))
    assert target.said == [
        "model-a: deploying",
        "model-a: running",
        "service: deploying",
        "service: running",
    ]
