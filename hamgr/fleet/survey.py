"""The survey: a fleet that grows step by step, measured idle, busy, and while leaders are lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from hamgr.dcs import codec
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Put, Range, Txn
from hamgr.drill.store import Store
from hamgr.fleet.agent import NAMESPACE, SYSTEM_IDENTIFIER
from hamgr.fleet.crew import Crew, cluster_name
from hamgr.fleet.findings import Calm, Elections, Step, delays_of, spread_of
from hamgr.fleet.gauges import Load, Reading, load_between, read_all
from hamgr.fleet.samples import Samples
from hamgr.fleet.witness import Witness

Say = Callable[[str], None]

_WAVE = 10
"""Clusters that are started at once. On hosts of their own they would not take the time of one machine's cores."""

_SETTLE_TIMEOUT_S = 120.0
_QUIET_S = 3.0
_QUIET_TIMEOUT_S = 20.0
_LAST_WORDS_S = 2.0
"""For changes that are on their way when a stretch of time ends."""
_FEWEST_DELAYS = 20
STORM_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to survey. `sizes`: numbers of clusters, growing."""

    sizes: tuple[int, ...]
    members: int = 3
    ttl_s: int = 5
    loop_wait_s: int = 1
    window_s: float = 30.0
    elections: int = 10
    per_process: int = 10
    spread: bool = False


class Survey:
    """One survey on a store that runs. Use as an asynchronous context manager: its agents end with it."""

    def __init__(self, store: Store, plan: Plan, room: Path, say: Say) -> None:
        self._store = store
        self._plan = plan
        self._say = say
        self._client = EtcdClient(EtcdConfig(tuple(store.endpoints)))
        self._crew = Crew(store.endpoints, room, members=plan.members, per_process=plan.per_process, spread=plan.spread)
        self._everything = Samples()
        """Of the step under way."""

    async def __aenter__(self) -> Survey:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._crew.close()
        await self._client.close()

    async def step(self, clusters: int) -> Step:
        """Grow to so many clusters and measure. Raises DrillError when agents do not settle."""
        agents = clusters * self._plan.members
        head = f"{agents} agents in {clusters} clusters"
        self._everything = Samples()
        self._say(f"{head}: starting")
        await self._found(clusters)
        settled_s = 0.0
        for more in range(self._crew.clusters, clusters, _WAVE):
            await self._crew.grow(min(more + _WAVE, clusters))
            settled_s = await self._crew.wait_until_settled(_SETTLE_TIMEOUT_S)
        await self._wait_until_quiet()
        self._say(f"{head}: idle for {self._plan.window_s:g} s")
        idle = await self._calm(written_to=False)
        self._say(f"{head}: written to for {self._plan.window_s:g} s")
        busy = await self._calm(written_to=True)
        self._say(f"{head}: leaders lost one after the other")
        single = await self._one_by_one(clusters)
        self._say(f"{head}: leaders lost at once")
        storm = await self._at_once(clusters)
        await self._take()
        return Step(
            clusters=clusters,
            agents=agents,
            settled_s=settled_s,
            idle=idle,
            busy=busy,
            single=single,
            storm=storm,
            lost_leases=len(self._everything.lost_leases),
            problems=tuple(self._everything.problems[:10]),
        )

    async def _found(self, clusters: int) -> None:
        """Enter what a bootstrapped cluster has in etcd."""
        settings = codec.encode_json({"ttl": self._plan.ttl_s, "loop_wait": self._plan.loop_wait_s})
        for number in range(self._crew.clusters, clusters):
            keys = ScopeKeys.of(cluster_name(number), NAMESPACE)
            await self._client.txn(Txn(then=(Put(keys.initialize, SYSTEM_IDENTIFIER), Put(keys.config, settings))))

    async def _wait_until_quiet(self) -> None:
        """Nothing was written for a while: what comes with a new cluster, or an election, is done. Or it never is."""
        deadline = time.monotonic() + _QUIET_TIMEOUT_S
        revision, since = 0, time.monotonic()
        while time.monotonic() < min(deadline, since + _QUIET_S):
            found = (await self._client.txn(Txn(then=(Range(NAMESPACE),)))).revision
            if found != revision:
                revision, since = found, time.monotonic()
            await asyncio.sleep(0.2)

    # -- calm --------------------------------------------------------------------------------------------------

    async def _calm(self, *, written_to: bool) -> Calm:
        await self._crew.write(written_to)
        await self._take()
        load = await self._measured()
        await self._crew.write(False)
        await asyncio.sleep(_LAST_WORDS_S)
        samples = await self._take()
        delays = delays_of(samples.sent, samples.seen, self._plan.members)
        return Calm(
            load=load,
            renewals=spread_of(samples.renewals_s),
            failed_renewals=len(samples.failed_renewals),
            status_writes_per_s=len(samples.sent) / load.seconds,
            delays=delays if delays.spread is not None and delays.spread.count >= _FEWEST_DELAYS else None,
        )

    async def _measured(self) -> Load:
        before = await self._reading()
        await asyncio.sleep(self._plan.window_s)
        return load_between(before, await self._reading())

    async def _reading(self) -> Reading:
        return await asyncio.to_thread(read_all, self._store, self._crew.pids)

    async def _take(self) -> Samples:
        samples = await self._crew.take()
        self._everything.lost_leases += samples.lost_leases
        self._everything.problems += samples.problems
        return samples

    # -- leaders lost ------------------------------------------------------------------------------------------

    async def _one_by_one(self, clusters: int) -> Elections:
        """Each lease revoked, so that nothing but the election is waited for."""
        before = await self._reading()
        vacancies: list[float | None] = []
        chosen = _spread_over(clusters, min(self._plan.elections, clusters))
        for number in chosen:
            (leader,) = await self._leaders([number])
            async with Witness(self._client, cluster_name(number)) as witness:
                await self._crew.end(number, leader, revoke=True)
                vacancies.append(await witness.vacancy_s(self._patience_s))
            await self._crew.revive(number, leader)
        await self._crew.wait_until_settled(_SETTLE_TIMEOUT_S)
        load = load_between(before, await self._reading())
        each = load.proposals_per_s * load.seconds / len(chosen)
        return _elections(vacancies, at_once=False, lateness_s=None, proposals_each=each)

    async def _at_once(self, clusters: int) -> Elections:
        """A share of all clusters lose their leaders together, as by a rack's power; their leases run out."""
        chosen = _spread_over(clusters, max(1, round(clusters * STORM_SHARE)))
        leaders = await self._leaders(chosen)
        async with AsyncExitStack() as stack:
            witnesses = [
                await stack.enter_async_context(Witness(self._client, cluster_name(number))) for number in chosen
            ]
            ends = await asyncio.gather(
                *(self._crew.end(number, leader, revoke=False) for number, leader in zip(chosen, leaders, strict=True))
            )
            vacancies = await asyncio.gather(*(witness.vacancy_s(self._patience_s) for witness in witnesses))
            gone = [witness.gone_at_s for witness in witnesses]
        lateness_s = [
            gone_at - confirmed_at - self._plan.ttl_s
            for gone_at, confirmed_at in zip(gone, ends, strict=True)
            if gone_at is not None and confirmed_at is not None
        ]
        for number, leader in zip(chosen, leaders, strict=True):
            await self._crew.revive(number, leader)
        await self._crew.wait_until_settled(_SETTLE_TIMEOUT_S)
        return _elections(vacancies, at_once=True, lateness_s=lateness_s, proposals_each=None)

    @property
    def _patience_s(self) -> float:
        return 2 * self._plan.ttl_s + 20.0

    async def _leaders(self, numbers: Sequence[int]) -> list[str]:
        """Names of the clusters' leaders, which have them: they are settled but for a moment after an election."""
        while True:
            known = await self._crew.leaders()
            if all(cluster_name(number) in known for number in numbers):
                return [known[cluster_name(number)] for number in numbers]
            await self._crew.wait_until_settled(_SETTLE_TIMEOUT_S)


def _elections(
    vacancies: Sequence[float | None],
    *,
    at_once: bool,
    lateness_s: Sequence[float] | None,
    proposals_each: float | None,
) -> Elections:
    return Elections(
        lost=len(vacancies),
        at_once=at_once,
        vacancy=spread_of([vacancy for vacancy in vacancies if vacancy is not None]),
        not_taken=vacancies.count(None),
        lateness=None if lateness_s is None else spread_of(lateness_s),
        proposals_each=proposals_each,
    )


def _spread_over(clusters: int, count: int) -> list[int]:
    """So many numbers below `clusters`, evenly spread."""
    return [clusters * position // count for position in range(count)]


async def survey(store: Store, plan: Plan, room: Path, say: Say, on_step: Callable[[Step], None]) -> float:
    """All steps, each told as soon as it is done; seconds that it took. Raises DrillError."""
    began = time.monotonic()
    async with Survey(store, plan, room, say) as running:
        for clusters in plan.sizes:
            on_step(await running.step(clusters))
    return time.monotonic() - began
