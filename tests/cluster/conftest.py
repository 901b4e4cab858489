"""Fixtures of the tests on real clusters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hamgr.drill.cluster import Cluster
from hamgr.drill.member import Member
from hamgr.drill.programs import missing_programs
from tests.cluster.bench import Bench, Cli, clear, delete, end, settings_of, sql, term


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """Where the cluster lives. Its files stay when something failed."""
    missing = missing_programs()
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def cluster(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three members of which one leads and two stream, in ttl 5, with a three-member etcd."""
    failed_before = request.session.testsfailed
    yield bench.need_cluster()
    bench.is_bad = bench.is_bad or request.session.testsfailed > failed_before


@pytest.fixture
def hamgr(cluster: Cluster) -> Cli:
    """The command line with the first member's file."""
    return Cli(cluster.members[0].config_path)


@pytest.fixture
def undisturbed(cluster: Cluster) -> Iterator[Member]:
    """The leader, which still leads in the same term and has lost nothing when the test is over."""
    leader, term_before = cluster.need_leader(), term(cluster)
    sql(leader, "CREATE TABLE IF NOT EXISTS witness (n int)")
    sql(leader, "INSERT INTO witness VALUES (1)")
    count = sql(leader, "SELECT count(*) FROM witness")
    yield leader
    assert cluster.wait_until_settled(45.0) is leader
    assert term(cluster) == term_before
    assert sql(leader, "SELECT count(*) FROM witness") >= count


@pytest.fixture
def spare(bench: Bench, cluster: Cluster, undisturbed: Member) -> Iterator[Member]:
    """A member more, with a good file and no data, not started. The others must not notice what becomes of it."""
    member = bench.spare()
    good = settings_of(member)
    clear(member)
    yield member
    end(member)
    # What counts the members next shall not find one whose lease has yet to run out.
    delete(cluster, f"members/{member.name}")
    clear(member)
    member.write_config(good)
