"""The ledger's rules, one by one and under random histories."""

import math
from collections import Counter
from types import MappingProxyType

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serve_app.replica.ledger import Ledger, LedgerRules, Step

TURN_S = 10.0
SIZES = MappingProxyType({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6})


def ledger(budget=2, **rules):
    return Ledger(LedgerRules(budget, turn_s=TURN_S, **rules))


def hold(books, *keys, now=0.0):
    """Load models of one byte each and let their first users go."""
    for key in keys:
        assert not books.ask(key, 1)
        assert books.step(now).loads == [key]
        books.loaded(key, 1, now)
        assert books.step(now).grants == [key]
        books.release(key, now)


def test_absent_model_is_loaded_once_and_serves_all_who_wait():
    books = ledger()
    assert not books.ask("a", 1)
    assert not books.ask("a", 1)
    assert books.step(0).loads == ["a"]
    assert books.step(0).loads == []
    books.loaded("a", 1, 5)
    assert books.step(5).grants == ["a"]
    assert books.callers("a") == 2
    assert books.ask("a", 1)


def test_unused_model_leaves_for_another_least_recently_used_first():
    books = ledger()
    hold(books, "a", "b")
    assert books.ask("a", 1)
    books.release("a", 1)
    books.ask("c", 1)
    assert books.step(2).unloads == ["b"]
    assert books.step(2) == Step(wake_at=TURN_S)
    books.unloaded("b")
    assert books.step(3).loads == ["c"]


def test_last_use_is_when_the_last_user_went():
    books = ledger()
    hold(books, "a", "b")
    for key in "ab":
        assert books.ask(key, 1)
    books.release("b", 3)
    books.release("a", 5)
    books.ask("c", 1)
    assert books.step(6).unloads == ["b"]


def test_those_whose_turn_is_over_leave_in_the_order_in_which_they_were_loaded():
    books = ledger(budget=2, max_loads=2)
    for key in "ab":
        books.ask(key, 1)
    assert books.step(0).loads == ["a", "b"]
    for now, key in enumerate("ba"):
        books.loaded(key, 1, now)
        assert books.step(now).grants == [key]
    books.ask("c", 1)
    assert books.step(TURN_S + 1) == Step()
    assert books.ask("a", 1)
    assert not books.ask("b", 1)  # closed


def test_rules_and_steps_say_little_by_themselves():
    assert LedgerRules(5) == LedgerRules(5, max_loads=1, turn_s=10.0, idle_s=math.inf)
    assert Step() == Step(grants=[], loads=[], unloads=[], wake_at=math.inf)
    assert ledger().step(0) == Step()


def test_size_is_what_was_measured_else_what_the_first_caller_said():
    books = ledger(budget=9)
    assert books.size("a") == 0
    books.ask("a", 3)
    books.ask("a", 4)
    assert books.size("a") == 3  # waits
    books.step(0)
    assert books.size("a") == 3  # loads
    books.loaded("a", 5, 1)
    assert (books.size("a"), books.used_bytes) == (5, 5)
    assert [books.fits(size) for size in (9, 10)] == [True, False]


def test_callers_are_counted_by_model_and_only_where_there_are_some():
    books = ledger(budget=1)
    hold(books, "a")
    assert books.calls() == {}
    assert books.ask("a", 1)
    for key in "abb":
        books.ask(key, 1)
    assert books.calls() == {"a": 2, "b": 2}
    assert (books.held, books.queued, books.loading) == (["a"], ["b"], [])
    books.withdraw("b")
    books.withdraw("b")
    assert (books.calls(), books.queued) == ({"a": 2}, [])


def test_model_that_is_not_held_cannot_be_retired():
    books = ledger()
    books.retire("a")
    books.ask("a", 1)
    books.step(0)
    books.retire("a")
    books.loaded("a", 1, 1)
    assert books.step(1).grants == ["a"]
    assert books.ask("a", 1)


def test_room_that_is_being_made_is_not_made_twice():
    books = ledger(budget=3)
    hold(books, "a", "b", "c")
    books.ask("d", 1)
    assert books.step(1).unloads == ["a"]
    books.ask("e", 1)
    assert books.step(2).unloads == []
    books.unloaded("a")
    assert books.step(3).loads == ["d"]


def test_model_in_use_stays_until_its_turn_is_over_then_finishes():
    books = ledger(budget=1)
    hold(books, "a")
    assert books.ask("a", 1)
    books.ask("b", 1)
    assert books.step(2) == Step(wake_at=TURN_S)
    assert books.ask("a", 1)
    assert books.step(TURN_S).unloads == []
    assert not books.ask("a", 1)  # closed: behind b
    books.release("a", 11)
    assert books.step(11).unloads == []
    books.release("a", 12)
    assert books.step(12).unloads == ["a"]
    books.unloaded("a")
    assert books.step(12).loads == ["b"]
    assert books.queued == ["a"]


def test_model_closed_for_one_that_left_the_queue_opens_again():
    books = ledger(budget=1)
    hold(books, "a")
    books.ask("a", 1)
    books.ask("b", 1)
    books.step(TURN_S)
    assert not books.ask("a", 1)
    books.withdraw("b")
    assert books.step(TURN_S).grants == ["a"]


def test_nothing_leaves_when_it_would_not_make_enough_room():
    books = ledger(budget=2)
    hold(books, "a", "b")
    books.ask("a", 1)
    books.ask("c", 2)
    assert books.step(1) == Step(wake_at=TURN_S)
    assert books.ask("b", 1)


def test_small_model_does_not_overtake_a_large_one():
    books = ledger(budget=2)
    hold(books, "a")
    books.ask("a", 1)
    books.ask("large", 2)
    books.ask("small", 1)
    assert books.step(1).loads == []


def test_loads_at_a_time_are_bounded():
    books = ledger(budget=9, max_loads=2)
    for key in "abc":
        books.ask(key, 1)
    assert books.step(0).loads == ["a", "b"]
    books.failed("b")
    assert books.step(0).loads == ["c"]


def test_model_larger_than_estimated_makes_others_leave_and_is_remembered():
    books = ledger(budget=2)
    hold(books, "a")
    books.ask("b", 1)
    books.step(0)
    books.loaded("b", 2, 1)
    step = books.step(1)
    assert (step.grants, step.unloads) == (["b"], ["a"])
    books.unloaded("a")
    assert books.used_bytes == 2
    assert books.size("b") == 2
    books.release("b", 2)
    books.ask("a", 1)
    assert books.step(2).unloads == ["b"]


def test_model_that_nobody_asks_for_leaves_after_a_while():
    books = ledger(idle_s=60.0)
    hold(books, "a")
    assert books.step(59).unloads == []
    assert books.step(59).wake_at == 60
    assert books.step(60).unloads == ["a"]


def test_always_busy_model_does_not_starve_another():
    """One user leaves only when the next one has come, for ever; the room is for one."""
    books = ledger(budget=1)
    hold(books, "hot")
    books.ask("hot", 1)
    books.ask("cold", 1)
    for now in range(100):
        had_next = books.ask("hot", 1)
        books.release("hot", now)
        step = books.step(now)
        if step.unloads:
            break
        assert had_next
    assert now == TURN_S + 1  # the last user before the turn's end goes one second later


class Histories(RuleBasedStateMachine):
    """Callers come, leave, finish; loads and unloads end in any order, some badly."""

    budget = 6
    real = SIZES

    def __init__(self):
        super().__init__()
        self.books = Ledger(LedgerRules(self.budget, max_loads=2, turn_s=TURN_S, idle_s=50.0))
        self.now = 0.0
        self.users, self.waiting = Counter(), Counter()
        self.loading, self.held, self.leaving = set(), set(), set()

    def settle(self):
        step = self.books.step(self.now)
        for key in step.grants:
            assert key in self.held - self.leaving
            self.users[key] += self.waiting.pop(key)
        for key in step.unloads:
            assert key in self.held
            assert not self.users[key], "in use"
            self.held.remove(key)
            self.leaving.add(key)
        for key in step.loads:
            assert key not in self.loading | self.held | self.leaving
            assert self.waiting[key], "nobody wants it"
            self.loading.add(key)
        assert len(self.loading) <= 2
        return step

    @rule(key=st.sampled_from("abcdef"))
    def ask(self, key):
        if self.books.ask(key, SIZES[key]):
            assert key in self.held
            self.users[key] += 1
        else:
            self.waiting[key] += 1
        self.settle()

    @precondition(lambda self: +self.waiting)
    @rule(data=st.data())
    def leave(self, data):
        key = data.draw(st.sampled_from(sorted(+self.waiting)))
        self.books.withdraw(key)
        self.waiting[key] -= 1
        self.settle()

    @precondition(lambda self: +self.users)
    @rule(data=st.data())
    def finish(self, data):
        self._finish(data.draw(st.sampled_from(sorted(+self.users))))

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), fails=st.booleans())
    def end_load(self, data, fails):
        self._end_load(data.draw(st.sampled_from(sorted(self.loading))), fails)

    @precondition(lambda self: self.leaving)
    @rule(data=st.data())
    def end_unload(self, data):
        self._end_unload(data.draw(st.sampled_from(sorted(self.leaving))))

    @rule(key=st.sampled_from("abcdef"))
    def retire(self, key):
        self.books.retire(key)
        self.settle()

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds):
        self.now += seconds
        self.settle()

    def _finish(self, key):
        self.books.release(key, self.now)
        self.users[key] -= 1
        self.settle()

    def _end_load(self, key, fails=False):
        self.loading.remove(key)
        if fails:
            self.books.failed(key)
            self.waiting.pop(key, None)
        else:
            self.books.loaded(key, self.real[key], self.now)
            self.held.add(key)
        self.settle()

    def _end_unload(self, key):
        self.books.unloaded(key)
        self.leaving.remove(key)
        self.settle()

    @invariant()
    def books_agree(self):
        assert set(self.books.held) == self.held
        assert set(self.books.loading) == self.loading
        for key in SIZES:
            assert self.books.callers(key) == self.users[key] + self.waiting[key]

    @invariant()
    def budget_is_kept(self):
        assert self.books.used_bytes <= self.budget

    def teardown(self):
        """No deadlock: if uses, loads and unloads end, everybody is served within few steps."""
        for _ in range(60):
            for key in list((+self.users).elements()):
                self._finish(key)
            for key in list(self.loading):
                self._end_load(key)
            for key in list(self.leaving):
                self._end_unload(key)
            wake_at = self.settle().wake_at
            if not (+self.waiting or +self.users or self.loading or self.leaving):
                break
            if math.isfinite(wake_at):
                self.now = max(self.now, wake_at)
        assert not +self.waiting, "somebody waits for ever"
        assert self.books.used_bytes <= self.budget


class WrongEstimates(Histories):
    """Models turn out larger or smaller than their files said."""

    real = MappingProxyType({"a": 2, "b": 1, "c": 4, "d": 3, "e": 6, "f": 6})

    @invariant()
    def budget_is_kept(self):
        """Over it only by what a load turned out larger, and then nothing more is loaded."""
        assert self.books.used_bytes <= self.budget + 2


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40)
TestWrongEstimates = WrongEstimates.TestCase
TestWrongEstimates.settings = settings(max_examples=40, stateful_step_count=40)


@pytest.mark.parametrize("turn_s", [0.0, 5.0])
def test_many_hot_models_take_turns(turn_s):
    """Six models with endless callers and room for two: each gets its turn again and again."""
    books = Ledger(LedgerRules(2, turn_s=turn_s))
    grants = Counter()
    users = Counter()
    for key in "abcdef":
        books.ask(key, 1)
    for now in range(200):
        step = books.step(now)
        for key in step.grants:
            grants[key] += 1
            users[key] = books.callers(key)
        for key in step.loads:
            books.loaded(key, 1, now)
        for key in step.unloads:
            books.unloaded(key)
        for key in list(+users):
            if books.ask(key, 1):
                books.release(key, now)  # the next one has come before this one goes
            else:
                books.release(key, now)
                users[key] = 0
    assert set(grants) == set("abcdef")
    assert max(grants.values()) - min(grants.values()) <= 1
