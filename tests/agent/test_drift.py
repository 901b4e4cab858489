"""A seed that says something else than the cluster is reported, key by key."""

from hamgr.agent.drift import differences


def test_only_keys_of_the_seed_that_differ_are_named() -> None:
    seed = {"ttl": 5, "loop_wait": 1, "postgresql": {"parameters": {"max_connections": 100, "work_mem": "4MB"}}}
    cluster = {"ttl": 5.0, "loop_wait": 2, "pause": True, "postgresql": {"parameters": {"max_connections": 100}}}
    assert list(differences(seed, cluster)) == [
        ("loop_wait", "1", "2"),
        ("postgresql.parameters.work_mem", "4MB", "nothing"),
    ]


def test_the_same_value_written_in_another_way_is_no_difference() -> None:
    assert not list(differences({"pause": False, "ttl": 5}, {"pause": "false", "ttl": "5"}))


def test_a_password_is_not_told() -> None:
    seed = {"postgresql": {"parameters": {"restore_command": "PGPASSWORD=s3cret fetch %f", "primary_conninfo": "a=b"}}}
    told = str(list(differences(seed, {"postgresql": {"parameters": {"restore_command": "PGPASSWORD=other get"}}})))
    assert "s3cret" not in told
    assert "other" not in told
    assert "a=b" not in told
    assert "nothing" in told
