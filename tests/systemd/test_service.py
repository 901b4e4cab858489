"""The service's life under a real systemd: what an operator does to it, and what goes wrong with it.

Each claim of "no gap" rests on two witnesses: a session that was open before and works after, and a client that writes
every 4 ms and knows when each of its writes was acknowledged.
"""

from __future__ import annotations

import pytest

from tests.systemd.containers import Host, docker, wait_until
from tests.systemd.trio import TTL_S, Session, Traffic, Trio

pytestmark = pytest.mark.cluster

KILL_GUARD = "systemctl kill --kill-who=main -s KILL hamgr"


def is_safe(traffic: Traffic) -> bool:
    """Never two primaries, and nothing lost of what was acknowledged."""
    verdict = traffic.verdict
    assert verdict is not None
    return verdict.is_safe and verdict.lost + verdict.lost_pinned == 0


def kept_writing(traffic: Traffic) -> bool:
    """One leadership throughout, and no pause that a lease could explain."""
    verdict = traffic.verdict
    assert verdict is not None
    return is_safe(traffic) and len(verdict.leaderships) == 1 and traffic.gap_s < TTL_S / 2


def wait_until_adopted(host: Host, former_guard: int) -> None:
    """Another guard is the service's main process and has told that it is ready."""
    wait_until(
        "another guard",
        lambda: host.guard not in (0, former_guard) and host.show("ActiveState") == "active",
    )


# -- start and stop --------------------------------------------------------------------------------------------


def test_start_returns_when_the_guard_is_ready_and_status_tells_role_leader_and_term(settled: Trio) -> None:
    leader, term = settled.need_leader, settled.term()
    for host in settled.hosts:
        assert (host.show("ActiveState"), host.show("SubState"), host.show("Type")) == ("active", "running", "notify")
    shown = wait_until("its status", lambda: leader.show("StatusText"))
    assert shown == f"{leader.name}: primary, running; leader in term {term}"
    for host in settled.replicas:
        assert host.show("StatusText") == f"{host.name}: replica, streaming; leader is {leader.name}, term {term}"
    assert f'Status: "{shown}"' in leader.ask("systemctl status hamgr --no-pager")


def test_stop_of_the_leader_hands_over_and_leaves_no_process(settled: Trio, leader: Host, traffic: Traffic) -> None:
    term = settled.term()
    programs = {process.split()[1] for process in leader.processes}
    assert programs == {"hamgr-guard", "hamgr-scribe", "hamgr-agent", "postgres"}
    with traffic:
        leader.run("systemctl stop hamgr")
        # exited, with 0, and not by systemd's force
        assert [leader.show(name) for name in ("ExecMainCode", "ExecMainStatus", "Result")] == ["1", "0", "success"]
        assert leader.show("ActiveState") == "inactive"
        assert leader.processes == []
        successor = wait_until("another leads", settled.leader)
    assert successor is not leader
    assert settled.term() == term + 1
    assert is_safe(traffic)
    assert traffic.gap_s < TTL_S, "handed over, and not waited for the end of the lease"


def test_stop_of_a_replica_leaves_the_leader_alone(settled: Trio, session: Session, traffic: Traffic) -> None:
    replica = settled.replicas[0]
    with traffic:
        replica.run("systemctl stop hamgr")
        assert replica.processes == []
        replica.run("systemctl start hamgr")
    assert kept_writing(traffic)
    assert session.works()


def test_restart_of_the_leaders_service_hands_over_and_it_comes_back_as_a_replica(
    settled: Trio, leader: Host, traffic: Traffic
) -> None:
    former = leader.postmaster
    with traffic:
        leader.run("systemctl restart hamgr")
        assert wait_until("another leads", settled.leader) is not leader
    assert settled.wait_until_settled() is not leader
    assert leader.postmaster != former
    assert is_safe(traffic)
    assert traffic.gap_s < TTL_S


# -- what dies or freezes --------------------------------------------------------------------------------------


def test_killed_agent_is_replaced_and_nobody_notices(leader: Host, session: Session, traffic: Traffic) -> None:
    guard, agent, server = leader.guard, leader.agent, leader.postmaster
    with traffic:
        leader.run(f"kill -KILL {agent}")
        wait_until("another agent", lambda: leader.agent not in (0, agent))
    assert (leader.guard, leader.postmaster) == (guard, server)
    assert kept_writing(traffic)
    assert session.works()


def test_killed_guard_is_started_again_at_once_and_adopts_agent_and_server(
    leader: Host, session: Session, traffic: Traffic
) -> None:
    guard, agent, server, restarts = leader.guard, leader.agent, leader.postmaster, int(leader.show("NRestarts"))
    since = leader.cursor()
    with traffic:
        leader.run(KILL_GUARD)
        wait_until_adopted(leader, guard)
    assert (leader.agent, leader.postmaster) == (agent, server)
    assert int(leader.show("NRestarts")) == restarts + 1
    assert any(entry["MESSAGE"] == f"hamgr-guard: adopted agent {agent}" for entry in leader.journal(since))
    assert kept_writing(traffic)
    assert session.works()
    wait_until("what the agent says", lambda: "leader in term" in leader.show("StatusText"))


def test_guard_and_agent_killed_together_are_back_and_nobody_notices(
    leader: Host, session: Session, traffic: Traffic
) -> None:
    guard, agent, server = leader.guard, leader.agent, leader.postmaster
    with traffic:
        leader.run(f"kill -KILL {guard} {agent}")
        wait_until_adopted(leader, guard)
        wait_until("another agent", lambda: leader.agent not in (0, agent))
    assert leader.postmaster == server
    assert kept_writing(traffic)
    assert session.works()


def test_frozen_guard_is_replaced_and_the_server_is_adopted(leader: Host, session: Session, traffic: Traffic) -> None:
    """By its agent, which looks more often, or by systemd's watchdog."""
    guard, agent, server = leader.guard, leader.agent, leader.postmaster
    with traffic:
        leader.run(f"kill -STOP {guard}")
        wait_until_adopted(leader, guard)
    assert (leader.agent, leader.postmaster) == (agent, server)
    assert kept_writing(traffic)
    assert session.works()


def test_watchdog_of_systemd_replaces_a_guard_that_froze_together_with_its_agent(
    settled: Trio, session: Session
) -> None:
    """On a replica, which no deadline binds: nobody else is left to see to it, and its server lives on.

    The kernel wakes the agent when its stopped process group has lost its parent; then it is adopted, too.
    """
    replica = settled.replicas[0]
    guard, agent, server, since = replica.guard, replica.agent, replica.postmaster, replica.cursor()
    replica.run(f"kill -STOP {agent} {guard}")
    wait_until_adopted(replica, guard)
    said = [entry["MESSAGE"] for entry in replica.journal(since)]
    assert any(text.startswith("hamgr.service: Watchdog timeout (limit 3s)") for text in said)
    assert replica.postmaster == server
    settled.wait_until_settled()
    assert session.works()


def test_agent_is_replaced_by_a_fresh_one_on_sigusr2(leader: Host, session: Session, traffic: Traffic) -> None:
    guard, agent, server = leader.guard, leader.agent, leader.postmaster
    with traffic:
        leader.run("systemctl kill --kill-who=main -s USR2 hamgr")
        wait_until("another agent", lambda: leader.agent not in (0, agent))
    assert (leader.guard, leader.postmaster) == (guard, server)
    assert kept_writing(traffic)
    assert session.works()


def test_all_of_the_service_killed_comes_back_by_itself(settled: Trio, leader: Host, traffic: Traffic) -> None:
    guard = leader.guard
    with traffic:
        leader.run("systemctl kill --kill-who=all -s KILL hamgr")
        wait_until_adopted(leader, guard)
    assert is_safe(traffic)
    settled.wait_until_settled()


# -- the host --------------------------------------------------------------------------------------------------


def test_reboot_of_the_leaders_host_hands_over_and_it_comes_back_by_itself(
    settled: Trio, leader: Host, traffic: Traffic
) -> None:
    with traffic:
        docker("restart", "--time", "90", leader.container, timeout_s=180)
        leader.wait_until_booted()
    assert settled.wait_until_settled() is not leader
    assert is_safe(traffic)
    assert traffic.gap_s < TTL_S, "handed over, and not waited for the end of the lease"


def test_power_loss_of_the_leaders_host_is_survived_and_it_comes_back_by_itself(
    settled: Trio, leader: Host, traffic: Traffic
) -> None:
    with traffic:
        docker("kill", leader.container)
        assert wait_until("another leads", settled.leader) is not leader
        docker("start", leader.container)
        leader.wait_until_booted()
    settled.wait_until_settled()
    verdict = traffic.verdict
    assert verdict is not None
    assert not verdict.two_primaries
    assert not verdict.timelines_twice


# -- bad configuration -----------------------------------------------------------------------------------------


def test_refused_configuration_ends_the_service_with_78_and_it_is_not_tried_again(
    settled: Trio, session: Session
) -> None:
    replica = settled.replicas[0]
    replica.run("systemctl stop hamgr; cp -p /etc/hamgr/hamgr.yml /root/good.yml")
    replica.run("sed -i 's/^scope:/scoop:/' /etc/hamgr/hamgr.yml")
    since = replica.cursor()
    assert "Job for hamgr.service failed" in replica.ask("systemctl start hamgr 2>&1")
    shown = [replica.show(name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")]
    assert shown == ["failed", "78", "0"]
    entries = replica.journal(since)
    assert not any("Scheduled restart job" in entry["MESSAGE"] for entry in entries)
    (told,) = [entry for entry in entries if "scoop" in entry["MESSAGE"]]
    assert told["PRIORITY"] == "3"
    replica.run("cp -p /root/good.yml /etc/hamgr/hamgr.yml; systemctl restart hamgr")
    settled.wait_until_settled()
    assert session.works()
