"""What stands in for PostgreSQL: a server that is always well, as far as the core's decisions ask for it."""

from __future__ import annotations

from hamgr.core import actions
from hamgr.core.actions import Action
from hamgr.core.cluster import ClusterView
from hamgr.core.result import Outcome, Result
from hamgr.core.server import NO_BIRTH, ControlFile, DataDir, Phase, ServerIdentity, ServerView
from hamgr.core.server_outcomes import Promoted, WalEnd
from hamgr.core.slotnames import slot_name
from hamgr.core.units import Instant, Lsn, Timeline
from hamgr.postgres.sight import Received

DONE = Outcome(Result.DONE)
BYTES_PER_TICK = 1 << 20
"""How far a primary that is written to gets in a tick. The amount matters to nobody, that it moves does."""


class StandIn:
    """A replica of the cluster's data, later perhaps its primary. Carries out at once what it is told."""

    def __init__(self, system_identifier: str, pid: int) -> None:
        self._system_identifier = system_identifier
        self._identity = ServerIdentity(pid, 1)
        self.is_running = True
        self.in_recovery = True
        self.is_written_to = False
        self._timeline = Timeline(1)
        self._lsn = Lsn(1 << 24)
        self._upstream = ""
        self._slots: dict[str, Lsn] = {}
        self._has_sentry = False
        self._birth = NO_BIRTH

    def tick(self, view: ClusterView | None) -> None:
        """A loop_wait has passed: a primary that is written to has moved, a replica has received what was told of."""
        if not self.in_recovery:
            self._lsn = Lsn(self._lsn + (BYTES_PER_TICK if self.is_written_to else 0))
        elif view is not None:
            self._lsn = max(self._lsn, view.status.optime)
            self._timeline = max(self._timeline, view.status.timeline)

    def seen(self, view: ClusterView | None, at: Instant) -> ServerView:
        """What a probe would see. A replica streams from whoever leads: a lost leader's connection is gone at once."""
        if not self.is_running:
            return ServerView(
                phase=Phase.STOPPED,
                data_dir=DataDir.VALID,
                probed_at=at,
                system_identifier=self._system_identifier,
                control=ControlFile(self._system_identifier, "shut down", self._timeline, self._lsn, self._lsn),
            )
        streams = self.in_recovery and bool(self._upstream) and view is not None and view.leader is not None
        return ServerView(
            phase=Phase.RUNNING,
            data_dir=DataDir.VALID,
            identity=self._identity,
            probed_at=at,
            answered=True,
            system_identifier=self._system_identifier,
            server_version=150000,
            major_version=15,
            in_recovery=self.in_recovery,
            is_read_only=self.in_recovery,
            timeline=self._timeline,
            birth=self._birth,
            written_lsn=Lsn(0) if self.in_recovery else self._lsn,
            received_lsn=self._lsn if self.in_recovery else Lsn(0),
            replayed_lsn=self._lsn if self.in_recovery else Lsn(0),
            upstream=self._upstream if self.in_recovery else "",
            streaming=streams,
            last_message_age_s=0.1 if streams else None,
            slots=dict(self._slots),
            has_sentry=self._has_sentry,
        )

    async def received(self) -> Received:
        """For a ballot: all that it has; no more comes."""
        return Received(self._timeline, self._lsn, streaming=False)

    async def stop_receiver(self) -> None:
        """For a ballot where a synchronous set exists: there is no receiver."""

    def promote(self, at: Instant) -> Outcome:
        """Primary, on a timeline of its own if it was none."""
        if self.in_recovery:
            self.in_recovery = False
            self._timeline = Timeline(self._timeline + 1)
        return Outcome(Result.DONE, value=Promoted(self._timeline, self._lsn, at, at))

    def carry_out(self, action: Action) -> Outcome:
        """Anything but a promotion, which takes the right to it."""
        match action:
            case actions.StartPrimary():
                self.is_running, self.in_recovery = True, False
            case actions.StartStandby() | actions.Reinitialize() | actions.RestartServer():
                self.is_running, self.in_recovery = True, True
            case actions.Fence() | actions.Rewind() | actions.Clone():
                self.is_running = False
            case actions.StopServer() | actions.HandOverStop() | actions.ExamineCrash() | actions.PutDown():
                self.is_running = False
                return Outcome(Result.DONE, value=WalEnd(self._timeline, self._lsn, was_clean=True))
            case actions.Follow():
                self._upstream = action.upstream.address
            case actions.EnsureSlots():
                self._slots = {slot_name(name): self._lsn for name in action.members}
            case actions.NoteBirth():
                self._birth = action.birth
                return Outcome(Result.DONE, value=action.birth)
            case actions.EnsureSentry():
                self._has_sentry = True
            case _:
                pass
        return DONE
