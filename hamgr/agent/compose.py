"""Composition: from settings to a running agent. The one place where all parts meet."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hamgr.agent import translate
from hamgr.agent.chronicle import Chronicle
from hamgr.agent.clock import now
from hamgr.agent.drift import changed_for_restart, differences
from hamgr.agent.executor import execute
from hamgr.agent.guard_replacement import guard_command, keep_guard
from hamgr.agent.guardlink import GuardLink
from hamgr.agent.journal import LOGGER, Journal
from hamgr.agent.loop import Loop, Pulse
from hamgr.agent.memory import Memory
from hamgr.agent.peers import Peers
from hamgr.agent.port import Port
from hamgr.agent.recorder import Recorder
from hamgr.agent.renewal import Renewer
from hamgr.agent.sensors import ServerSensor, first_of, watch_guard, watch_store
from hamgr.agent.vitals import VitalSensor
from hamgr.agent.world import World
from hamgr.api import server as rest
from hamgr.api.config import ApiBroken
from hamgr.api.server import RunningApi
from hamgr.core.actions import Action, MoveLeader
from hamgr.core.cluster import ClusterView
from hamgr.core.facts import (
    ClusterRecalled,
    Fact,
    LeaseAdopted,
    LeaseTried,
    MemoryLost,
    PolicyRead,
    Promised,
    ReplaceOrdered,
    SettingsReread,
    StopOrdered,
)
from hamgr.core.pipeline import Record
from hamgr.core.portrait import status_line
from hamgr.core.result import Outcome
from hamgr.core.state import State
from hamgr.core.units import Instant, Term, after
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.errors import StoreError
from hamgr.dcs.etcd import EtcdStore
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.lease import RenewalConnection
from hamgr.guard.layout import SharedPage
from hamgr.postgres.errors import ServerError
from hamgr.postgres.server import open_server
from hamgr.settings import Loaded, SettingsError, load, parse_dynamic

BEAT_S = 0.2
PERMIT_TICKS = 2.5
"""A permit lasts for this many ticks: one may come late without the lease being left to run out."""
RECALL_AFTER_S = 0.5
"""etcd that has not answered by then is taken to be gone, until it does."""


class Agent:
    """The parts of one agent and what ties them together."""

    def __init__(self, path: Path, loaded: Loaded, runtime_dir: str) -> None:
        self._path = path
        self._loaded = loaded
        self._recorder = Recorder(Path(loaded.settings.postgresql.data_dir), loaded.settings.recorder.size)
        watchdog = loaded.settings.watchdog
        required = watchdog.device if watchdog.mode == "required" else ""
        self._link = GuardLink(runtime_dir, SharedPage.open(runtime_dir), required)
        policy = loaded.seed.policy()
        me = translate.myself(loaded.settings)
        self._chronicle = Chronicle(self._recorder.post)
        self._loop = Loop(
            State(me, policy), self._execute, self._read_policy, Journal(), self._on_pulse, self._chronicle
        )
        keys = ScopeKeys.of(loaded.settings.scope, loaded.settings.namespace)
        etcd = translate.etcd_config(loaded.settings, policy)
        self._etcd_secrets: tuple[object, ...] = ()
        with contextlib.suppress(StoreError):
            self._etcd_secrets = etcd.secrets()
        self._client = EtcdClient(etcd)
        self._store = EtcdStore(self._client, keys)
        self._renewal = RenewalConnection(etcd, keys)
        self._renewer = Renewer(me.name, self._renewal, self._link, self._post_from_thread)
        self._peers = Peers(translate.peer_access(loaded.settings), loaded.settings.scope)
        self._memory = Memory(translate.memory_path(loaded.settings), keys)
        self._memory_lost_at: Instant | None = None
        self._adopted_term = Term(0)
        self._dynamic = loaded.seed
        self._values: Mapping[str, Any] | None = None
        self._problems_told: tuple[str, ...] = ()
        self._told_term = Term(0)
        self._api: RunningApi | None = None

    async def run(self) -> int:
        """Live until told to end; the process's exit status."""
        self._thread_loop = asyncio.get_running_loop()
        self._recorder.start()
        self._chronicle.began(translate.beginning(self._loaded.settings))
        server = await open_server(translate.server_config(self._loaded.settings, self._loaded.seed), self._link)
        self._sensor = ServerSensor(server, self._loop.post, self._state)
        self._world = World(
            store=self._store,
            server=server,
            link=self._link,
            peers=self._peers,
            memory=self._memory,
            state=self._state,
            post=self._loop.post,
            probe=self._sensor.probe,
            probe_soon=self._sensor.probe_soon,
            recorded=self._recorded,
            seed_config=self._seed_config,
            wanted=lambda: translate.server_config(self._loaded.settings, self._dynamic),
            front=translate.front(self._loaded.settings),
        )
        self._port = Port(self._world, self._loaded.settings.scope, self._reload)
        self._adopt_promise()
        # From the first beat on the guard waits for the next: a look at a server that hangs must not keep it waiting.
        beating = asyncio.create_task(watch_guard(self._link, self._loop.post, BEAT_S))
        self._api = await rest.start(translate.api_config(self._loaded.settings), self._port)
        self._listen_to_signals()
        self._adopt_lease()
        await self._sensor.probe()
        self._renewer.start()
        deciding = asyncio.create_task(self._loop.run())
        try:
            await first_of(
                deciding,
                self._sensor.run(),
                VitalSensor(server, self._loop.post, self._state).run(),
                watch_store(
                    self._store, self._loop.post, lambda: self._state().policy.retry_timeout_s, self._known_revision
                ),
                beating,
                keep_guard(self._link, guard_command(self._path, self._loaded, is_stand_in=True)),
                self._remember(),
            )
            if deciding.result() == 0:
                await self._leave()
            self._link.bid_farewell(deciding.result())
            return deciding.result()
        finally:
            self._renewer.end()
            self._recorder.close()
            await self._peers.close()

    async def _leave(self) -> None:
        """The server is stopped: give the lease back, so that nobody waits for this member. Not while the guard still
        guards one: it was not seen on a disk that hangs, and may write until its deadline.
        """
        lease_id = self._state().lease.lease_id
        if lease_id and not self._link.page.armed:
            with contextlib.suppress(StoreError):
                await self._store.revoke_lease(lease_id)

    def _state(self) -> State:
        return self._loop.state

    def _known_revision(self) -> int:
        """Of the newest view; whatever etcd is asked from now on is answered by one as new, unless it has lost data."""
        view = self._state().cluster
        return view.revision if view is not None else 0

    def _post_from_thread(self, fact: Fact) -> None:
        self._thread_loop.call_soon_threadsafe(self._loop.post, fact)

    async def _execute(self, action: Action) -> Outcome:
        return await execute(self._world, action)

    def _on_pulse(self, pulse: Pulse) -> None:
        """After each decision: a fresh snapshot for REST, and a permit for the renewal."""
        self._port.publish(pulse)
        state = pulse.state
        self._link.show(status_line(state, pulse.decision.reason))
        if state.cluster is not None and state.cluster.revision:
            self._memory.note(state.cluster)
            self._report_problems(state.cluster.problems)
        self._peers.keep_warm(_to_be_asked(state), pulse.at)
        self._note_loss(state.policy.ttl_s)
        if state.promised_until is not None:
            self._link.note_promise(state.promised_until)
        lasts_s = PERMIT_TICKS * max(state.policy.loop_wait_s, 0.2)
        until = after(pulse.at, lasts_s) if pulse.decision.may_renew else Instant(0.0)
        self._lift_limit(state)
        self._renewer.permit(state.lease.lease_id, until, state.policy, self._known_revision())

    def _lift_limit(self, state: State) -> None:
        """Once it is settled on which lease the leader key is, the page knows. Not before this agent has a lease: what
        its predecessor tried is still to be adopted with that.
        """
        lease = state.lease
        if lease.lease_id and lease.tried is None and state.running(MoveLeader) is None:
            self._link.lift_limit(lease.lease_id)

    def _adopt_lease(self) -> None:
        """What the predecessor of this agent left in the guard's page, if its deadline has not come."""
        page = self._link.page
        if page.lease_id and page.deadline_ns > now() * 1e9:
            self._adopted_term = Term(page.term if page.armed else 0)
            tried = None
            if page.tried_lease_id:
                tried = LeaseTried(page.tried_lease_id, Instant(page.tried_deadline_ns / 1e9))
            deadline = Instant(page.deadline_ns / 1e9)
            self._loop.post(LeaseAdopted(page.lease_id, deadline, self._adopted_term, tried))

    def _adopt_promise(self) -> None:
        """What this agent's predecessors promised in this boot. Before REST is there: nothing is promised earlier.

        On a new page it is not known what that was. That, too, is left for a successor that comes before long.
        """
        page, at = self._link.page, now()
        if page.agent_heartbeat_ns == 0:
            self._memory_lost_at = at
            self._note_loss(self._loaded.seed.policy().ttl_s)
            self._loop.post(MemoryLost(at))
        elif page.promised_until_ns > at * 1e9:
            self._loop.post(Promised("", Instant(page.promised_until_ns / 1e9)))
        self._link.beat()

    def _note_loss(self, ttl_s: float) -> None:
        """A successor, too, sits out one ttl from when the memory was lost, whatever ttl turns out to be in force."""
        if self._memory_lost_at is not None:
            self._link.note_promise(after(self._memory_lost_at, ttl_s))

    async def _remember(self) -> None:
        """For ever: what is known of the cluster is on disk; where etcd is silent at the start, it comes from there."""
        await asyncio.sleep(RECALL_AFTER_S)
        if self._state().cluster is None:
            view = await self._memory.recall(now())
            if view is not None and self._state().cluster is None:
                LOGGER.warning("etcd does not answer: going by what was remembered of the cluster")
                self._loop.post(ClusterRecalled(_as_vouched_for(view, self._state().me.name, self._adopted_term)))
        await self._memory.run()

    def _read_policy(self, state: State) -> PolicyRead | None:
        """The dynamic configuration in force after a new view. A broken one is reported, and the last good one stays;
        an agent that has read none goes by all of it that is not broken.
        """
        config = state.cluster.config if state.cluster is not None else None
        revision = config.mod_revision if config is not None else 0
        if revision == state.policy_revision:
            return None
        values = config.values if config is not None else self._seed_config()
        dynamic, problems = parse_dynamic(values)
        words = tuple(str(problem) for problem in problems)
        for text in words:
            LOGGER.warning("configuration in etcd: %s", text)
        is_broken = any(problem.is_error for problem in problems)
        if is_broken and state.policy_revision >= 0:
            return PolicyRead(state.policy, revision, words, is_broken)
        self._dynamic = dynamic
        self._values = values if config is not None else self._values
        self._report_drift(values or {})
        return PolicyRead(dynamic.policy(), revision, words, is_broken)

    def _seed_config(self) -> Mapping[str, Any]:
        """What an etcd without the cluster is to have: what was in force before it lost it, or what the file says."""
        return self._values if self._values is not None else translate.seed_of(self._loaded)

    def _report_problems(self, problems: tuple[str, ...]) -> None:
        """Keys that hold what nobody can read are told once, and again when there are others."""
        for text in problems:
            if text not in self._problems_told:
                LOGGER.warning("key in etcd not understood, what it said is not known: %s", text)
        self._problems_told = problems

    def _report_drift(self, values: Mapping[str, Any]) -> None:
        """`bootstrap.dcs` only seeds a cluster: who changes it later and expects an effect is told."""
        for path, here, there in differences(self._loaded.settings.bootstrap.dcs, values):
            LOGGER.warning(
                "bootstrap.dcs.%s is %s in the file, %s in the cluster, which is in force: use `hamgr edit-config`",
                path,
                here,
                there,
            )

    async def _reload(self) -> tuple[str, ...]:
        """SIGHUP and POST /reload: read the file again; what cannot be read leaves the present settings in force.

        Returns what was not taken over, and why.
        """
        try:
            loaded = await asyncio.to_thread(load, self._path)
        except SettingsError as error:
            return _told(f"the configuration file was not taken over: {error}")
        for path in changed_for_restart(self._loaded, loaded):
            LOGGER.warning("%s was changed in the file: it takes effect when the service is restarted", path)
        self._loaded = loaded
        failed: tuple[str, ...] = ()
        LOGGER.setLevel(self._loaded.settings.log.level)
        try:
            await self._world.server.use_logins(self._world.wanted())
        except ServerError as error:
            failed += _told(f"the passwords were not taken over: {error}")
        try:
            self._use_etcd(translate.etcd_config(self._loaded.settings, self._loaded.seed.policy()))
        except StoreError as error:
            failed += _told(f"nothing that concerns etcd was taken over: {error}")
        try:
            access = translate.peer_access(self._loaded.settings)
            if self._api is not None:
                await self._api.reload(translate.api_config(self._loaded.settings))
            await self._peers.use(access)
        except ApiBroken as error:
            failed += _told(f"nothing that concerns REST was taken over: {error}")
        view = self._state().cluster
        if view is not None and view.config is not None and view.config.values is not None:
            self._report_drift(view.config.values)
        self._world.front = translate.front(self._loaded.settings)
        tags = translate.tags_of(self._loaded.settings.tags)
        self._loop.post(SettingsReread(now(), self._world.front.routes, tags))
        return failed

    def _use_etcd(self, config: EtcdConfig) -> None:
        """Connections are made anew if a password, an address or what a certificate file holds has changed."""
        secrets = config.secrets()
        if secrets != self._etcd_secrets:
            self._etcd_secrets = secrets
            self._client.use(config)
            self._renewal.use(config)

    def _recorded(self, record: Record) -> None:
        if record.term == self._told_term:
            return
        self._told_term = record.term
        LOGGER.info(
            "leader changed: term %s, %s, %s -> %s",
            record.term,
            record.cause,
            record.former or "nobody",
            record.leader,
        )

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: self._loop.post(StopOrdered(now())))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self._loop.post(ReplaceOrdered(now())))
        loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(self._reload()))


def _told(text: str) -> tuple[str, ...]:
    LOGGER.error("%s", text)
    return (text,)


def _to_be_asked(state: State) -> frozenset[str]:
    """REST addresses of those whose promises a leader will need once etcd is gone."""
    if state.lease.term == 0 or state.cluster is None or not state.policy.failsafe_mode:
        return frozenset()
    return frozenset(url for name, url in state.cluster.roster.items() if name != state.me.name)


def _as_vouched_for(view: ClusterView, me: str, adopted_term: Term) -> ClusterView:
    """A remembered view, without this member's lead if the guard's page does not show it: it may have been given up,
    and another may lead, since the file was written.
    """
    if view.is_led_by(me) and view.term != adopted_term:
        return view._replace(leader=None)
    return view


async def run_agent(path: Path, loaded: Loaded, runtime_dir: str) -> int:
    """One agent from start to end; its exit status."""
    return await Agent(path, loaded, runtime_dir).run()
