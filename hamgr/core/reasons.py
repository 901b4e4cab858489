"""Why something was decided: a closed set of codes, each with the values that its sentence needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Code(Enum):
    """One per kind of decision. `hamgr.core.sentences` has the sentence of each."""

    STARTING = "starting"
    LEADING = "leading"
    LEADING_BY_PEERS = "leading_by_peers"
    FOLLOWING = "following"
    PAUSED = "paused"
    NO_VIEW = "no_view"
    NO_LEASE = "no_lease"
    STORE_DOWN = "store_down"
    UNUSABLE_DATA = "unusable_data"
    FOREIGN_DATA = "foreign_data"
    NOT_ENTITLED = "not_entitled"
    OTHER_LEADS = "other_leads"
    DEADLINE_NEAR = "deadline_near"
    ALONE = "alone"
    ILL = "ill"
    ILL_AND_NONE_BETTER = "ill_and_none_better"
    PUTTING_DOWN = "putting_down"
    STOPPING = "stopping"
    STOPPED = "stopped"
    REPLACED = "replaced"
    INITIALIZING = "initializing"
    WAIT_INITIALIZE = "wait_initialize"
    WAIT_LEADER = "wait_leader"
    RETAKING_KEY = "retaking_key"
    RETAKING_LEAD = "retaking_lead"
    OLD_LEASE = "old_lease"
    TWIN = "twin"
    PROMOTING = "promoting"
    VERIFYING = "verifying"
    SERVER_STARTING = "server_starting"
    START_TOOK_TOO_LONG = "start_took_too_long"
    EXAMINING_CRASH = "examining_crash"
    OFFERING = "offering"
    OFFER_DECLINED = "offer_declined"
    RESTART_IN_PLACE = "restart_in_place"
    CRASHED_AGAIN = "crashed_again"
    RELEASING = "releasing"
    REQUEST_REFUSED = "request_refused"
    PREPARING_HAND_OVER = "preparing_hand_over"
    HANDING_OVER = "handing_over"
    HAND_OVER_ABORTED = "hand_over_aborted"
    MAY_NOT_LEAD = "may_not_lead"
    GAVE_UP = "gave_up"
    LAGS_TOO_FAR = "lags_too_far"
    OLD_TIMELINE = "old_timeline"
    NOT_CANDIDATE = "not_candidate"
    NOT_IN_SYNC = "not_in_sync"
    NOT_IN_ROSTER = "not_in_roster"
    PROMISED = "promised"
    UNFIT = "unfit"
    NO_WATCHDOG = "no_watchdog"
    LACKS_OFFERED_WAL = "lacks_offered_wal"
    VOTING = "voting"
    WAIT_BALLOTS = "wait_ballots"
    WAIT_QUORUM = "wait_quorum"
    OLD_PRIMARY_HEARD = "old_primary_heard"
    WAIT_WINNER = "wait_winner"
    TAKING_LEAD = "taking_lead"
    CLONING = "cloning"
    STARTING_STANDBY = "starting_standby"
    DIVERGED = "diverged"
    REWINDING = "rewinding"
    REDIRECTING = "redirecting"
    LEAVING = "leaving"
    LEFT_ALONE = "left_alone"
    NOT_STREAMING = "not_streaming"
    ORDER = "order"
    BACKING_OFF = "backing_off"


@dataclass(frozen=True, slots=True)
class Reason:
    """A code and the values for its sentence."""

    code: Code
    values: tuple[tuple[str, str], ...] = ()


def because(code: Code, **values: object) -> Reason:
    """A reason with its values as text, in the order given."""
    return Reason(code, tuple((key, str(value)) for key, value in values.items()))
