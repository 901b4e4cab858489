"""A Patroni file, translated for each part; and no password where it could be printed."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from hamgr.agent import translate
from hamgr.core.health import tags_as_json
from hamgr.dcs.codec import encode_tags
from hamgr.postgres.config import LogicalSlot, LogicalSlots
from hamgr.settings import Loaded, load

PATRONI = """
scope: batman
name: pg1
namespace: /db/
restapi:
  listen: 0.0.0.0:8008
  connect_address: 10.0.0.11:8008
  authentication: {username: admin, password: secret-rest}
  allowlist: [10.0.0.0/24, 192.168.1.7, ops.example]
etcd3:
  hosts: [10.0.0.11:2379, 10.0.0.12:2379]
  username: etcd-user
  password: secret-etcd
bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    postgresql:
      use_slots: true
      parameters: {max_connections: 200, work_mem: 4MB}
  initdb:
    - encoding: UTF8
    - data-checksums
  pg_hba:
    - local all all peer
postgresql:
  listen: 10.0.0.11,127.0.0.1:5433
  connect_address: 10.0.0.11:5433
  data_dir: /var/lib/postgresql/15/main
  bin_dir: /usr/lib/postgresql/15/bin
  pgpass: /tmp/pgpass0
  parameters: {work_mem: 16MB}
  authentication:
    superuser: {username: postgres, password: secret-super, sslmode: verify-full, sslrootcert: /etc/ca.pem}
    replication: {username: replicator, password: secret-replication}
    rewind: {username: rewinder, password: secret-rewind}
tags:
  nofailover: false
  clonefrom: true
  failover_priority: 0
  datacenter: east
"""
SECRETS = ("secret-rest", "secret-etcd", "secret-super", "secret-replication", "secret-rewind")


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return loaded_from(tmp_path, PATRONI)


def loaded_from(tmp_path: Path, text: str) -> Loaded:
    path = tmp_path / "patroni.yml"
    path.write_text(text)
    return load(path, {})


def translated(loaded: Loaded) -> Iterator[Any]:
    """All that leaves the translation."""
    settings = loaded.settings
    yield translate.myself(settings)
    yield translate.etcd_config(settings, loaded.seed.policy())
    yield translate.server_config(settings, loaded.seed)
    yield translate.api_config(settings)
    yield translate.seed_of(loaded)


def test_no_password_is_in_any_repr(loaded: Loaded) -> None:
    shown = "\n".join(f"{value!r}\n{value!s}" for value in (*translated(loaded), loaded.settings, loaded))
    assert [secret for secret in SECRETS if secret in shown] == []


def test_the_passwords_arrive(loaded: Loaded) -> None:
    settings = loaded.settings
    server = translate.server_config(settings, loaded.seed)
    assert server.rewind is not None
    arrived = (
        translate.api_config(settings).password,
        translate.etcd_config(settings, loaded.seed.policy()).password,
        *(role.password for role in (server.superuser, server.replication, server.rewind)),
    )
    assert arrived == SECRETS


def test_the_member_announces_addresses_that_others_reach(loaded: Loaded) -> None:
    me = translate.myself(loaded.settings)
    assert me.name == "pg1"
    assert me.conn_url == "postgres://10.0.0.11:5433/postgres"
    assert me.api_url == "http://10.0.0.11:8008/patroni"
    assert (me.tags.clonefrom, me.tags.failover_priority, me.tags.sync_priority) == (True, 0, 1)
    assert not me.tags.may_lead
    assert me.tags.extra == {"datacenter": "east"}


def test_etcd_is_reached_as_the_file_says_within_the_clusters_limit(loaded: Loaded) -> None:
    config = translate.etcd_config(loaded.settings, loaded.seed.policy())
    assert sorted(config.hosts) == ["10.0.0.11:2379", "10.0.0.12:2379"]
    assert (config.username, config.protocol) == ("etcd-user", "http")
    assert config.timeout_s == loaded.seed.policy().retry_timeout_s


def test_an_etcd_whose_url_says_https_is_spoken_to_by_tls(tmp_path: Path) -> None:
    by_url = PATRONI.replace("hosts: [10.0.0.11:2379, 10.0.0.12:2379]", "url: https://10.0.0.11:2379")
    loaded = loaded_from(tmp_path, by_url)
    assert translate.etcd_config(loaded.settings, loaded.seed.policy()).protocol == "https"


def test_members_of_one_cluster_do_not_all_ask_the_same_etcd_first(loaded: Loaded) -> None:
    named = [loaded.settings.model_copy(update={"name": f"pg{number}"}) for number in range(9)]
    first = [translate.etcd_config(settings, loaded.seed.policy()).hosts[0] for settings in named]
    assert set(first) == {"10.0.0.11:2379", "10.0.0.12:2379"}


def test_the_server_is_run_as_the_file_and_the_cluster_say(loaded: Loaded) -> None:
    config = translate.server_config(loaded.settings, loaded.seed)
    assert (config.name, config.scope, config.port) == ("pg1", "batman", 5433)
    assert config.data_dir == Path("/var/lib/postgresql/15/main")
    assert config.bin_dir == Path("/usr/lib/postgresql/15/bin")
    assert config.listen_hosts == ("10.0.0.11", "127.0.0.1")
    assert config.connect_host == "10.0.0.11"
    assert config.initdb_options == ("--encoding=UTF8", "--data-checksums")
    assert config.passfile == Path("/tmp/pgpass0")
    assert config.superuser.options == {"sslmode": "verify-full", "sslrootcert": "/etc/ca.pem"}
    assert config.use_slots
    assert config.logical == LogicalSlots()


def test_declared_logical_slots_reach_the_server(tmp_path: Path) -> None:
    declared = "    slots: {cdc: {type: logical, database: app, plugin: pgoutput}, mine: {type: physical}}"
    loaded = loaded_from(tmp_path, PATRONI.replace("    ttl: 30", f"    ttl: 30\n{declared}"))
    config = translate.server_config(loaded.settings, loaded.seed)
    assert config.logical == LogicalSlots({"cdc": LogicalSlot("app", "pgoutput")}, are_synced=True)


def test_parameters_of_the_file_win_over_the_clusters(loaded: Loaded) -> None:
    parameters = translate.server_config(loaded.settings, loaded.seed).parameters
    assert (str(parameters["max_connections"]), parameters["work_mem"]) == ("200", "16MB")


@pytest.mark.parametrize(
    ("mine", "clusters", "seeds", "chosen"),
    [
        (("mine",), ("clusters",), ("seeds",), ("mine",)),
        ((), ("clusters",), ("seeds",), ("clusters",)),
        ((), (), ("seeds",), ("seeds",)),
        ((), (), (), None),
    ],
)
def test_pg_hba_of_the_member_then_of_the_cluster_then_of_the_bootstrap(
    loaded: Loaded,
    mine: tuple[str, ...],
    clusters: tuple[str, ...],
    seeds: tuple[str, ...],
    chosen: tuple[str, ...] | None,
) -> None:
    def with_lines(section: Any, lines: tuple[str, ...]) -> Any:
        return section.model_copy(update={"pg_hba": lines})

    settings, dynamic = loaded.settings, loaded.seed
    settings = settings.model_copy(
        update={
            "postgresql": with_lines(settings.postgresql, mine),
            "bootstrap": with_lines(settings.bootstrap, seeds),
        }
    )
    dynamic = dynamic.model_copy(update={"postgresql": with_lines(dynamic.postgresql, clusters)})
    assert translate.hba_of(settings, dynamic) == chosen


def test_the_password_of_a_pools_key_arrives_and_no_other_does(tmp_path: Path) -> None:
    pools = "pgbouncer: [{sslcert: /c, sslkey: /k, sslpassword: secret-key}]\n"
    roles = PATRONI
    for name in ("postgres", "replicator", "rewinder"):
        roles = roles.replace(f"username: {name},", f"username: {name}, sslpassword: secret-key,")
    loaded = loaded_from(tmp_path, roles + pools)
    assert sum(problem.path.endswith(".sslpassword") for problem in loaded.warnings) == 3
    front = translate.front(loaded.settings)
    assert front.pools[0].fields["sslpassword"] == "secret-key"
    assert front.pools[0].fields["sslkey"] == "/k"
    config = translate.server_config(loaded.settings, loaded.seed)
    assert config.rewind is not None
    assert not any("sslpassword" in role.options for role in (config.superuser, config.replication, config.rewind))
    assert "secret-key" not in repr((front, config, loaded))


def test_tags_that_have_no_effect_show_as_patroni_shows_them(tmp_path: Path) -> None:
    tagged = PATRONI.replace("  datacenter: east", "  datacenter: east\n  replicatefrom: pg2\n  nostream: true")
    tags = translate.tags_of(loaded_from(tmp_path, tagged).settings.tags)
    assert tags.extra == {"replicatefrom": "pg2", "nostream": True, "datacenter": "east"}
    assert tags_as_json(tags)["replicatefrom"] == "pg2"
    assert encode_tags(tags)["nostream"] is True


def test_rewind_without_a_role_of_its_own_is_the_superusers(tmp_path: Path) -> None:
    without = "\n".join(line for line in PATRONI.splitlines() if "rewinder" not in line)
    loaded = loaded_from(tmp_path, without)
    config = translate.server_config(loaded.settings, loaded.seed)
    assert config.rewind is None
    assert config.rewind_role == config.superuser


def test_the_rest_server_lets_in_whom_the_file_names(loaded: Loaded) -> None:
    config = translate.api_config(loaded.settings)
    assert (config.host, config.port, config.username) == ("0.0.0.0", 8008, "admin")
    assert config.allowlist == (ip_network("10.0.0.0/24"), ip_network("192.168.1.7/32"))
    assert config.allowed_hosts == ("ops.example",)
    assert config.certfile is None


def test_the_seed_spells_the_timings_out_in_whole_seconds_where_they_are_whole(loaded: Loaded) -> None:
    seed = translate.seed_of(loaded)
    assert (seed["ttl"], seed["loop_wait"], seed["retry_timeout"]) == (30, 10, 10)
    assert isinstance(seed["ttl"], int)
    assert seed["postgresql"]["parameters"] == {"max_connections": 200, "work_mem": "4MB"}
