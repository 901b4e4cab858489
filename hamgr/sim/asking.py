"""A request to etcd and its reply: late, lost on either way, refused, or answered."""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import Enum
from typing import Any

from hamgr.sim.ground import Ground
from hamgr.sim.process import Process
from hamgr.sim.steps import Resume, Wait

RESEND_S = 0.1


class NoAnswer(Enum):
    """LOST: it may have taken effect, or may yet. REFUSED: it has not, and will not."""

    LOST = "lost"
    REFUSED = "refused"


def ask(ground: Ground, asker: Process, name: str, do: Callable[[], Any], within_s: float) -> Wait:
    """To be yielded: has etcd do that; the answer is what `do` returned, or NoAnswer."""

    def begin(go_on: Resume) -> None:
        network, give_up_at, life = ground.network, ground.now + within_s, asker.generation

        def resume(answer: Any) -> None:
            # The request of a process that ended meanwhile takes effect, and nothing follows from its answer.
            if asker.generation == life:
                go_on(answer)

        to_s = network.to_etcd_s(name)
        if to_s is None and ground.pace.cuts_refuse:
            asker.at(ground.later(ground.pace.to_etcd), lambda: resume(NoAnswer.REFUSED))
            return
        if to_s is None or to_s > within_s:
            asker.at(give_up_at, lambda: resume(NoAnswer.LOST))
            if to_s is not None:
                ground.at(ground.now + to_s, lambda: _carry_out(ground, do))
            return
        ground.at(ground.now + to_s, lambda: _arrive(ground, asker, name, do, give_up_at, resume))

    return begin


def _carry_out(ground: Ground, do: Callable[[], Any]) -> None:
    """It came so late that nobody waits for the answer any more."""
    if ground.etcd.answers:
        do()


def _arrive(
    ground: Ground, asker: Process, name: str, do: Callable[[], Any], give_up_at: float, resume: Resume
) -> None:
    etcd = ground.etcd
    if etcd.answers:
        _answer(ground, asker, name, do(), give_up_at, resume)
    elif etcd.refuses:
        asker.at(ground.now, lambda: resume(NoAnswer.REFUSED))
    else:
        asker.at(give_up_at, lambda: resume(NoAnswer.LOST))
        if ground.dice.random() < 0.5:
            etcd.waiting.append(lambda: _carry_out(ground, do))


def _answer(ground: Ground, asker: Process, name: str, reply: Any, give_up_at: float, resume: Resume) -> None:
    back_s = ground.network.from_etcd_s(name)
    if back_s is None or ground.now + back_s > give_up_at:
        asker.at(give_up_at, lambda: resume(NoAnswer.LOST))
    else:
        asker.at(ground.now + back_s, lambda: resume(reply))


def settle(
    ground: Ground, asker: Process, name: str, do: Callable[[], Any], within_s: float
) -> Generator[Wait, Any, Any]:
    """Ask, and ask again after a lost reply: the transactions know whether they have been done already."""
    give_up_at = ground.now + within_s
    worst = NoAnswer.REFUSED
    while True:
        left_s = give_up_at - ground.now
        answer = yield ask(ground, asker, name, do, min(left_s, within_s / 2))
        if not isinstance(answer, NoAnswer):
            return answer
        worst = NoAnswer.LOST if answer is NoAnswer.LOST else worst
        if ground.pace.cuts_refuse or give_up_at - ground.now < 2 * RESEND_S:
            return worst
        yield RESEND_S
