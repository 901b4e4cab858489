"""What decide may ask the executor to do: a closed union of frozen values, each in one lane."""

from __future__ import annotations

from dataclasses import dataclass

from hamgr.core.lanes import Lane, Upstream
from hamgr.core.route_actions import HoldPools, PointPools, PushRoute, ReleasePools
from hamgr.core.server_actions import (
    AFTER_PROMOTION,
    BEFORE_STOP,
    ApplyConfig,
    AwaitStandbys,
    CheckHistory,
    Checkpoint,
    Clone,
    DropFormerSlots,
    EnsureSentry,
    EnsureSlots,
    ExamineCrash,
    Fence,
    Follow,
    HandOverStop,
    InitDb,
    NoteBirth,
    Promote,
    PutDown,
    Reinitialize,
    RestartServer,
    Rewind,
    SetSync,
    StartPrimary,
    StartStandby,
    StopServer,
)
from hamgr.core.store_actions import (
    AskPeers,
    CastBallot,
    ClearRequest,
    FinishInitialize,
    GrantLease,
    MoveLeader,
    PutHistory,
    PutMember,
    PutOffer,
    PutRecord,
    PutRoster,
    PutStatus,
    PutSync,
    ReattachLeader,
    ReleaseLeader,
    RetakeLeader,
    TakeInitialize,
    TakeLeader,
    WithdrawOffer,
)

__all__ = [
    "AFTER_PROMOTION",
    "BEFORE_STOP",
    "GIVING_AWAY",
    "OVERTAKING",
    "TAKING_DOWN",
    "Action",
    "ApplyConfig",
    "AskPeers",
    "AwaitStandbys",
    "CastBallot",
    "CheckHistory",
    "Checkpoint",
    "ClearRequest",
    "Clone",
    "DropFormerSlots",
    "EnsureSentry",
    "EnsureSlots",
    "ExamineCrash",
    "Exit",
    "Fence",
    "FinishInitialize",
    "Follow",
    "GrantLease",
    "HandOverStop",
    "HoldPools",
    "InitDb",
    "Lane",
    "MoveLeader",
    "NoteBirth",
    "PointPools",
    "Promote",
    "PushRoute",
    "PutDown",
    "PutHistory",
    "PutMember",
    "PutOffer",
    "PutRecord",
    "PutRoster",
    "PutStatus",
    "PutSync",
    "ReattachLeader",
    "Reinitialize",
    "ReleaseLeader",
    "ReleasePools",
    "RestartServer",
    "RetakeLeader",
    "Rewind",
    "SetSync",
    "StartPrimary",
    "StartStandby",
    "StopServer",
    "TakeInitialize",
    "TakeLeader",
    "Upstream",
    "WithdrawOffer",
]


@dataclass(frozen=True, slots=True)
class Exit:
    """End this agent process with `code` (0: in order, 75: to be replaced)."""

    code: int
    lane = Lane.PROCESS


Action = (
    InitDb
    | Clone
    | Rewind
    | StartPrimary
    | StartStandby
    | CheckHistory
    | StopServer
    | HandOverStop
    | Fence
    | ExamineCrash
    | PutDown
    | Promote
    | Follow
    | RestartServer
    | Reinitialize
    | Checkpoint
    | EnsureSlots
    | AwaitStandbys
    | DropFormerSlots
    | SetSync
    | EnsureSentry
    | NoteBirth
    | ApplyConfig
    | GrantLease
    | TakeInitialize
    | FinishInitialize
    | TakeLeader
    | ReattachLeader
    | RetakeLeader
    | MoveLeader
    | AskPeers
    | ReleaseLeader
    | PutOffer
    | WithdrawOffer
    | CastBallot
    | ClearRequest
    | PutMember
    | PutStatus
    | PutRecord
    | PutHistory
    | PutRoster
    | PutSync
    | HoldPools
    | ReleasePools
    | PushRoute
    | PointPools
    | Exit
)


TAKING_DOWN = (Fence, StopServer, HandOverStop, PutDown, RestartServer, Reinitialize, ExamineCrash)
"""Actions that end the server."""

OVERTAKING = (Fence, PutDown)
"""Actions for which others in their lane are cut short."""

GIVING_AWAY = (PutOffer, ReleaseLeader)
"""Actions after which somebody else may lead."""
