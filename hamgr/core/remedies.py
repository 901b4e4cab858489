"""What holds a failover back, and what frees it: by the code of the reason, for `hamgr explain`."""

from __future__ import annotations

from hamgr.core.reasons import Code

REMEDIES: dict[Code, str] = {
    Code.PAUSED: "run `hamgr resume`",
    Code.NO_VIEW: "make etcd answer this host: nothing is decided before its keys were read once",
    Code.NO_LEASE: "make etcd answer this host: without a lease a member can neither vote nor lead",
    Code.STORE_DOWN: "make etcd answer this host",
    Code.UNUSABLE_DATA: "correct what is wrong with the data directory, or empty it to have it cloned",
    Code.FOREIGN_DATA: "move the data directory away to have it cloned, or correct `scope`",
    Code.ALONE: "give this host its network back",
    Code.ILL: "nothing to do: in a moment it is known whether another member is better off",
    Code.ILL_AND_NONE_BETTER: "cure what it names here, or make a replica well that may lead",
    Code.WAIT_INITIALIZE: "nothing to do while the member that makes the cluster is up; if it is lost, its lease ends",
    Code.WAIT_LEADER: "see what the other members wait for; if none may lead, `hamgr failover --candidate MEMBER`",
    Code.OLD_LEASE: "nothing to do: that lease ends within one ttl",
    Code.TWIN: "give one of the two agents another `name`, or stop it",
    Code.SERVER_STARTING: "nothing to do while it recovers; primary_start_timeout bounds it",
    Code.GAVE_UP: "nothing to do: it votes again after that time; the others go first",
    Code.MAY_NOT_LEAD: "take the tag nofailover away (and failover_priority 0) and reload the member",
    Code.LAGS_TOO_FAR: (
        "bring back a member that has more, raise maximum_lag_on_failover, or accept the loss: "
        "`hamgr failover --candidate MEMBER --allow-data-loss`"
    ),
    Code.OLD_TIMELINE: "bring back a member of the cluster's timeline, or set check_timeline to false",
    Code.NOT_CANDIDATE: "nothing to do while the named candidate is up; else `hamgr flush switchover`",
    Code.NOT_IN_SYNC: (
        "bring back a member of the synchronous set, or accept the loss: "
        "`hamgr failover --candidate MEMBER --allow-data-loss`"
    ),
    Code.NOT_IN_ROSTER: (
        "bring back a member that was entered; if all of them are lost for good: "
        "`hamgr failover --candidate MEMBER --allow-data-loss`"
    ),
    Code.PROMISED: "nothing to do: the promise ends by itself within one ttl after the leader's last word",
    Code.NO_WATCHDOG: "give the server's user the device, or set watchdog.mode to automatic",
    Code.OLD_PRIMARY_HEARD: "nothing to do: it is waited for until it is silent, for one ttl at most",
    Code.UNFIT: "cure what it names here; the others go first",
    Code.LACKS_OFFERED_WAL: "nothing to do: the holder starts again if nobody has all of its WAL",
    Code.WAIT_BALLOTS: "nothing to do: the election window bounds it",
    Code.WAIT_QUORUM: (
        "bring those members back, or accept the loss: `hamgr failover --candidate MEMBER --allow-data-loss`"
    ),
    Code.WAIT_WINNER: "nothing to do: if the winner does not come, it is left out after a moment",
    Code.DIVERGED: "nothing to do while a leader is up: it is rewound, or cloned",
    Code.NOT_STREAMING: "see the server's log: the leader must let it in, and hold the WAL that it needs",
    Code.BACKING_OFF: "correct what the last try failed of",
}
"""Where nothing is to be done the sentence says by what it ends."""

GOING_ON = frozenset(
    {
        Code.STARTING,
        Code.LEADING,
        Code.LEADING_BY_PEERS,
        Code.FOLLOWING,
        Code.NOT_ENTITLED,
        Code.OTHER_LEADS,
        Code.DEADLINE_NEAR,
        Code.PUTTING_DOWN,
        Code.STOPPING,
        Code.STOPPED,
        Code.REPLACED,
        Code.INITIALIZING,
        Code.RETAKING_KEY,
        Code.RETAKING_LEAD,
        Code.PROMOTING,
        Code.VERIFYING,
        Code.START_TOOK_TOO_LONG,
        Code.EXAMINING_CRASH,
        Code.OFFERING,
        Code.OFFER_DECLINED,
        Code.RESTART_IN_PLACE,
        Code.CRASHED_AGAIN,
        Code.RELEASING,
        Code.REQUEST_REFUSED,
        Code.PREPARING_HAND_OVER,
        Code.HANDING_OVER,
        Code.HAND_OVER_ABORTED,
        Code.VOTING,
        Code.TAKING_LEAD,
        Code.CLONING,
        Code.STARTING_STANDBY,
        Code.REWINDING,
        Code.REDIRECTING,
        Code.LEAVING,
        Code.LEFT_ALONE,
        Code.ORDER,
    }
)
"""Reasons that hold nothing back: something is being done, or all is well."""


def remedy(code: str) -> str:
    """What frees a member that gives this reason; empty if nothing holds it back, or the code is not known here."""
    return next((words for known, words in REMEDIES.items() if known.value == code), "")
