"""What the flight recorder makes of simulated worlds under faults: it is told in whole sentences, and once."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise

import pytest

from hamgr.agent.chronicle import Chronicle
from hamgr.core.decide import Decision
from hamgr.core.facts import ActionEnded, ActionStarted, Fact
from hamgr.core.observe import observe
from hamgr.core.recording import SIGHTS, Event, Kind, event_as_json, event_from_json, words
from hamgr.core.state import State
from hamgr.core.units import Instant
from hamgr.sim import agent as module
from hamgr.sim.run import Options, run_seed

SEEDS = range(6)


class Recorders:
    """A chronicle for each member, fed by the simulator's agents as the real loop feeds it."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.chronicles: dict[str, Chronicle] = {}
        self._decide = module.decide

    def of(self, name: str) -> Chronicle:
        return self.chronicles.setdefault(name, Chronicle(self.events[name].append))

    def observe(self, state: State, fact: Fact) -> State:
        changed = observe(state, fact)
        chronicle = self.of(state.me.name)
        if changed is not state:
            chronicle.folded(state, fact, changed)
        if isinstance(fact, ActionStarted):
            chronicle.started(fact.action, fact.at)
        elif isinstance(fact, ActionEnded):
            since = [each.since for each in state.under_way if each.action == fact.action]
            chronicle.ended(fact.action, fact.outcome, since[0] if since else fact.at, fact.at)
        return changed

    def decide(self, state: State, now: Instant) -> Decision:
        decision = self._decide(state, now)
        self.of(state.me.name).decided(state, decision, now)
        return decision


@pytest.fixture(scope="module")
def recorders() -> Recorders:
    """After some dozens of worlds."""
    made = Recorders()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "observe", made.observe)
        patch.setattr(module, "decide", made.decide)
        for seed in SEEDS:
            run_seed(seed, Options())
    return made


def events_of(recorders: Recorders) -> list[Event]:
    return [event for events in recorders.events.values() for event in events]


def test_every_event_reads_as_a_whole_sentence(recorders: Recorders) -> None:
    lacking = {(event.kind, event.name, words(event)) for event in events_of(recorders) if "?" in words(event)}
    assert lacking == set()


def test_every_event_comes_back_from_its_line(recorders: Recorders) -> None:
    for event in events_of(recorders):
        back = event_from_json(json.loads(json.dumps(event_as_json(event))))
        assert (back.kind, back.name, words(back)) == (event.kind, event.name, words(event))


def test_every_sight_that_is_seen_has_its_sentence(recorders: Recorders) -> None:
    seen = {event.name for event in events_of(recorders) if event.kind is Kind.SEEN}
    assert seen <= set(SIGHTS)
    assert {"server_exited", "leader", "no_leader", "store_failed", "store_answers", "offer", "ballot"} <= seen


def test_no_news_is_told_twice_in_a_row(recorders: Recorders) -> None:
    twice = set()
    for events in recorders.events.values():
        told = [(event.kind, event.name, words(event)) for event in events]
        twice |= {now for before, now in pairwise(told) if now == before and now[0] is Kind.SEEN}
    assert twice == set()
