"""Codes into sentences, for logs, REST and CLI alike."""

from __future__ import annotations

from collections.abc import Mapping

from hamgr.core.reasons import Code, Reason

SENTENCES: dict[Code, str] = {
    Code.STARTING: "starting: the local server has not been looked at yet",
    Code.LEADING: "leading in term {term}",
    Code.LEADING_BY_PEERS: "leading in term {term} by the promises of the other members: etcd does not answer",
    Code.FOLLOWING: "following {leader}",
    Code.PAUSED: "paused: automatic changes are off, run `hamgr resume` to turn them on",
    Code.NO_VIEW: "etcd has not been read yet: {error}",
    Code.NO_LEASE: "getting a lease from etcd",
    Code.STORE_DOWN: "etcd does not answer: {error}",
    Code.UNUSABLE_DATA: "the data directory cannot be used: {problem}",
    Code.FOREIGN_DATA: (
        "the data directory belongs to another cluster (system identifier {local}, here {cluster}): "
        "move it away, or correct `scope`"
    ),
    Code.NOT_ENTITLED: "fencing: the server may accept writes, and this member does not hold the leader key",
    Code.OTHER_LEADS: "fencing: the server may accept writes, and {leader} holds the leader key",
    Code.DEADLINE_NEAR: "stopping the server: the lease runs out in {left_s} s and could not be renewed",
    Code.ALONE: "stopping the server: this host reaches nobody (no link, or no route), the lease will end",
    Code.ILL: "the server is ill ({vital}: {problem}): looking whether others are better off",
    Code.ILL_AND_NONE_BETTER: "the server is ill ({vital}: {problem}), nobody is better off: it stays as it is",
    Code.PUTTING_DOWN: "putting the server down, it is ill ({vital}: {problem}) and others are well",
    Code.STOPPING: "stopping in order",
    Code.STOPPED: "stopped in order",
    Code.REPLACED: "this agent ends, to be replaced; server and lease stay",
    Code.INITIALIZING: "making a new cluster",
    Code.WAIT_INITIALIZE: "waiting for {leader} to make the cluster",
    Code.WAIT_LEADER: "waiting for a leader: {why}",
    Code.RETAKING_KEY: "writing the leader key afresh: something sent before could still give it away",
    Code.RETAKING_LEAD: "etcd answers again: taking the leader key again in term {term}",
    Code.OLD_LEASE: "the leader key names this member but hangs on a lease that it does not know: waiting for its end",
    Code.TWIN: "another agent lives under the name {name} at {address}: choose another `name`, or stop that one",
    Code.PROMOTING: "promoting in term {term}",
    Code.VERIFYING: "leading in term {term}: verifying that the server, which runs already, accepts writes",
    Code.SERVER_STARTING: "waiting for the server to accept connections",
    Code.START_TOOK_TOO_LONG: "giving the lead up: the server does not start here: {text}",
    Code.EXAMINING_CRASH: "the server ended without being asked: reading where its WAL ends",
    Code.OFFERING: "offering the lead to a replica that has all WAL up to {lsn}",
    Code.OFFER_DECLINED: "no replica that has all WAL up to {lsn} took the lead in time",
    Code.RESTART_IN_PLACE: "starting the server in place",
    Code.CRASHED_AGAIN: "giving the lead up: the server ended again right after its start",
    Code.RELEASING: "giving the leader key up",
    Code.REQUEST_REFUSED: "refused the request: {why}",
    Code.PREPARING_HAND_OVER: "preparing to hand over to {successor}",
    Code.HANDING_OVER: "handing over to {successor}",
    Code.HAND_OVER_ABORTED: "hand-over to {successor} aborted: it did not take the lead in time",
    Code.GAVE_UP: "not a candidate for {left_s} s: its server failed while it led, others go first",
    Code.MAY_NOT_LEAD: "not a candidate: tagged nofailover",
    Code.LAGS_TOO_FAR: "not a candidate: {behind} bytes behind, maximum_lag_on_failover is {limit}",
    Code.OLD_TIMELINE: "not a candidate: on timeline {own}, the cluster is on {cluster}",
    Code.NOT_CANDIDATE: "not a candidate: {candidate} was named",
    Code.NOT_IN_SYNC: "not a candidate: not in the synchronous set",
    Code.NOT_IN_ROSTER: (
        "not a candidate: the last leader had not entered this member as up ({roster}), and may lead on without etcd"
    ),
    Code.PROMISED: "not a candidate for {left_s} s: has promised {leader}, which leads without etcd, to wait",
    Code.NO_WATCHDOG: "not a candidate: {problem}",
    Code.UNFIT: "not a candidate: {vital}: {problem}; others are well",
    Code.LACKS_OFFERED_WAL: "not a candidate: has WAL up to {own}, the leader's ends at {lsn}",
    Code.VOTING: "voting for term {term}",
    Code.WAIT_BALLOTS: "waiting for the ballots of {members}",
    Code.WAIT_QUORUM: (
        "waiting for {needed} more of {members} to vote with no more WAL than here: commits could be lost without them"
    ),
    Code.OLD_PRIMARY_HEARD: "waiting for the old primary to fall silent: it still streams to this member",
    Code.WAIT_WINNER: "waiting for {winner}, whose ballot is greater, to take the lead",
    Code.TAKING_LEAD: "taking the lead in term {term}",
    Code.CLONING: "copying the data directory from {source}",
    Code.STARTING_STANDBY: "starting the server as a standby of {leader}",
    Code.DIVERGED: "the local WAL has diverged from {leader}",
    Code.REWINDING: "rewinding onto the history of {leader}",
    Code.REDIRECTING: "pointing the server at {leader}",
    Code.LEAVING: "receiving no more from elsewhere before it follows {leader}",
    Code.LEFT_ALONE: "receiving no more: neither etcd nor a leader says whom to follow",
    Code.NOT_STREAMING: "running, but not streaming from {leader} yet",
    Code.ORDER: "carrying out the order to {kind}",
    Code.BACKING_OFF: "trying again in {left_s} s: {text}",
}


def sentence(reason: Reason) -> str:
    """The reason in words. Values that the sentence needs and the reason lacks show as '?'."""
    return filled(SENTENCES[reason.code], dict(reason.values))


def filled(template: str, values: Mapping[str, object]) -> str:
    """A sentence with its values in place; '?' for one that is missing."""
    return template.format_map(_Lenient(values))


class _Lenient(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return "?"
