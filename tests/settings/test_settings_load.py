"""What a member's file may say, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hamgr.settings import Address, SettingsError, WatchdogSection, effective, load

PATRONI_FILE = """
scope: batman
name: postgresql0
log:
  level: info
  format: '%(asctime)s %(levelname)s: %(message)s'
  dir: /var/log/patroni
restapi:
  listen: 127.0.0.1:8008
  connect_address: 10.0.0.5:8008
  ciphers: HIGH
etcd:
  host: 10.0.0.5:2379
bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      parameters:
        wal_level: replica
  initdb:
  - encoding: UTF8
  - data-checksums
  users:
    admin: {password: geheim-3, options: [createrole]}
postgresql:
  listen: 127.0.0.1,10.0.0.5:5432
  connect_address: 10.0.0.5:5432
  data_dir: /data/postgresql0
  pgpass: /tmp/pgpass0
  create_replica_methods: [wal_e, basebackup]
  wal_e: {command: patroni_wale_restore}
  callbacks: {on_start: /bin/true}
  authentication:
    replication: {username: replicator, password: rep-pass}
    superuser: {username: postgres, password: 0123}
    rewind: {username: rewind_user, password: rewind_password}
  parameters:
    unix_socket_directories: '/tmp'
tags:
  nofailover: false
  site: north
  rack: 7
"""


def test_least_file_loads_without_warning(load_with):
    loaded = load_with()
    assert loaded.warnings == ()
    assert loaded.settings.namespace == "/service/"
    assert loaded.settings.rest_address == Address("10.0.0.1", 8008)
    assert loaded.settings.runtime_dir == "/run/hamgr/main-db1"


def test_patroni_file_with_etcd_starts_hamgr_and_names_what_has_no_effect(load_text):
    loaded = load_text(PATRONI_FILE)
    assert {each.path for each in loaded.warnings} == {
        "log.dir",
        "log.format",
        "restapi.ciphers",
        "bootstrap.users",
        "postgresql.wal_e",
        "postgresql.callbacks",
        "postgresql.create_replica_methods",
    }
    assert loaded.settings.etcd3.endpoints == (Address("10.0.0.5", 2379),)
    assert loaded.settings.postgresql.listen.hosts == ("127.0.0.1", "10.0.0.5")
    assert loaded.settings.tags.model_extra == {"site": "north", "rack": 7}
    assert loaded.seed.policy().ttl_s == 30


def test_number_written_as_password_keeps_its_digits(load_text):
    password = load_text(PATRONI_FILE).settings.postgresql.authentication.superuser.password
    assert password.get_secret_value() == "0123"


def test_number_written_as_password_of_a_pool_keeps_its_digits(load_text, least_file):
    pools = "pgbouncer:\n- {port: 1, password: 0123456}\n- {port: 2, username: 007, password: 1e3}\n"
    one, two = load_text(yaml.safe_dump(least_file) + pools).settings.pgbouncer
    assert one.password.get_secret_value() == "0123456"
    assert (two.username, two.password.get_secret_value()) == ("007", "1e3")


def test_key_that_nobody_knows_is_an_error_with_the_nearest_name(problems_of):
    problem = problems_of({"postgresql": {"data_dri": "/x"}})["postgresql.data_dri"]
    assert problem.is_error
    assert problem.hint == "did you mean data_dir?"


def test_key_inside_the_dynamic_seed_is_checked_too(problems_of):
    problem = problems_of({"bootstrap": {"dcs": {"tll": 5}}})["bootstrap.dcs.tll"]
    assert problem.is_error
    assert problem.hint == "did you mean ttl?"


def test_every_problem_is_told_at_once(problems_of):
    changes = {
        "scpoe": "x",
        "name": None,
        "etcd3": None,
        "restapi": {"listen": "nowhere:port"},
        "bootstrap": {"dcs": {"ttl": 1}},
        "postgresql": {"data_dir": "relative/path"},
    }
    assert {path for path, each in problems_of(changes).items() if each.is_error} == {
        "scpoe",
        "name",
        "etcd3",
        "restapi.listen",
        "bootstrap.dcs.ttl",
        "postgresql.data_dir",
    }


@pytest.mark.parametrize("store", ["consul", "zookeeper", "kubernetes", "raft", "exhibitor"])
def test_other_store_alone_is_an_error_that_says_what_hamgr_speaks(problems_of, store):
    problem = problems_of({"etcd3": None, store: {"hosts": ["a:1"]}})[store]
    assert "etcd 3" in problem.text


def test_other_store_beside_etcd_is_a_warning(problems_of):
    assert not problems_of({"consul": {"host": "a:1"}})["consul"].is_error


def test_problem_in_the_section_called_etcd_is_told_by_that_name(problems_of):
    changes = {"etcd3": None, "etcd": {"hosts": ["10.0.0.1:99999"], "hsots": []}}
    assert problems_of(changes).keys() == {"etcd.hosts", "etcd.hsots"}


@pytest.mark.parametrize("hosts", ["a:1,b", "'a:1','b'", ["a:1", "b:2379"]])
def test_endpoints_are_a_list_or_a_comma_separated_text(load_with, hosts):
    assert load_with({"etcd3": {"hosts": hosts}}).settings.etcd3.endpoints == (
        Address("a", 1),
        Address("b", 2379),
    )


@pytest.mark.parametrize("host", ["db1", f"{'a' * 63}.example", "db1.example.", "::1", "fe80::1%eth0.100"])
def test_names_that_a_look_up_takes_are_taken(load_with, host):
    written = f"[{host}]:8008" if ":" in host else f"{host}:8008"
    assert load_with({"restapi": {"connect_address": written}}).settings.rest_address == Address(host, 8008)


@pytest.mark.parametrize("hosts", [[None], [""], ",", " , "])
def test_a_list_without_an_endpoint_is_told(problems_of, hosts):
    problem = problems_of({"etcd3": {"hosts": hosts}})["etcd3.hosts"]
    assert problem.is_error
    assert "names no endpoint" in problem.text


def test_endpoint_as_url_says_protocol_too(load_with):
    etcd = load_with({"etcd3": {"hosts": None, "url": "https://etcd.example:2379"}}).settings.etcd3
    assert etcd.endpoints == (Address("etcd.example", 2379),)
    assert etcd.is_tls


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": "a/b"}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": ""}, "name"),
        ({"scope": "ä"}, "scope"),
        ({"scope": ["x"]}, "scope"),
        ({"name": True}, "name"),
        ({"namespace": "/a b/"}, "namespace"),
        ({"tags": {"site": ["a"]}}, "tags.site"),
        ({"tags": {"nofailover": "perhaps"}}, "tags.nofailover"),
        ({"tags": "nofailover"}, "tags"),
        ({"log": {"level": "loud"}}, "log.level"),
        ({"watchdog": {"mode": "sometimes"}}, "watchdog.mode"),
        ({"recorder": {"size": "lots"}}, "recorder.size"),
        ({"recorder": {"size": "1kB"}}, "recorder.size"),
        ({"recorder": {"size": -1}}, "recorder.size"),
        ({"watchdog": {"safety_margin": 5}}, "watchdog.safety_margin"),
        ({"postgresql": {"listen": "::1:5432"}}, "postgresql.listen"),
        ({"postgresql": {"connect_address": "0.0.0.0:5432"}}, "postgresql.connect_address"),
        ({"postgresql": {"connect_address": None}}, "postgresql.connect_address"),
        ({"postgresql": {"connect_address": "10..0.0.1:5432"}}, "postgresql.connect_address"),
        ({"restapi": {"connect_address": ".db1:8008"}}, "restapi.connect_address"),
        ({"restapi": {"connect_address": f"{'a' * 64}.example:8008"}}, "restapi.connect_address"),
        ({"postgresql": {"connect_address": "10.0.0.1:8008"}}, "restapi.connect_address"),
        ({"postgresql": {"parameters": {"work mem": 1}}}, "postgresql.parameters"),
        ({"postgresql": {"parameters": {"work_mem": "1\nport = 1"}}}, "postgresql.parameters"),
        ({"postgresql": {"pg_hba": ["local all all peer\nhost all all all trust"]}}, "postgresql.pg_hba"),
        ({"postgresql": {"pg_hba": "local all all peer"}}, "postgresql.pg_hba"),
        ({"postgresql": {"data_dir": "/"}}, "postgresql.data_dir"),
        ({"postgresql": None}, "postgresql"),
        (
            {"postgresql": {"authentication": {"superuser": {"password": "a\nb"}}}},
            "postgresql.authentication.superuser.password",
        ),
        ({"restapi": {"verify_client": "required"}}, "restapi.verify_client"),
        ({"restapi": {"keyfile": "/k"}}, "restapi.certfile"),
        ({"restapi": {"allowlist": ["10.0.0.0/8", "10.0.0.300"]}}, "restapi.allowlist"),
        ({"restapi": {"http_extra_headers": {"X-A": "b\r\nX-C: d"}}}, "restapi.http_extra_headers"),
        ({"restapi": {"certfile": "relative.pem"}}, "restapi.certfile"),
        ({"etcd3": {"hosts": ["a:0"]}}, "etcd3.hosts"),
        ({"etcd3": {"url": "http://user:pw@a:1"}}, "etcd3.url"),
        ({"guard": {"stop_timeout": "soon"}}, "guard.stop_timeout"),
        ({"guard": {"stop_timeout": float("nan")}}, "guard.stop_timeout"),
        ({True: 1}, "True"),
        ({"pgbouncer": [{"pord": 1}]}, "pgbouncer.0.pord"),
        ({"pgbouncer": [5]}, "pgbouncer.0"),
        ({"pgbouncer": {"port": 1}}, "pgbouncer"),
        ({"pgbouncer": [{"port": 0}]}, "pgbouncer.0.port"),
        ({"pgbouncer": [{"host": "a,b"}]}, "pgbouncer.0.host"),
        ({"pgbouncer": [{"host": "tmp/socket"}]}, "pgbouncer.0.host"),
        ({"pgbouncer": [{"databases": "app"}]}, "pgbouncer.0.databases"),
        ({"pgbouncer": [{"databases": ["app = host=elsewhere"]}]}, "pgbouncer.0.databases"),
        ({"pgbouncer": [{"pause_timeout": 0}]}, "pgbouncer.0.pause_timeout"),
        ({"pgbouncer": [{"target_file": "target.ini"}]}, "pgbouncer.0.target_file"),
        ({"pgbouncer": [{"target_options": "pool_size=1\n[pgbouncer]"}]}, "pgbouncer.0.target_options"),
        ({"pgbouncer": [{"port": 6432}, {"host": "127.0.0.1"}]}, "pgbouncer.1.host"),
        ({"pgbouncer": [{"target_file": "/t"}, {"port": 1, "target_file": "/t"}]}, "pgbouncer.1.target_file"),
        ({"haproxy": [{}]}, "haproxy.0.socket"),
        ({"haproxy": [{"socket": "admin.sock"}]}, "haproxy.0.socket"),
        ({"haproxy": [{"socket": "/s", "backend": "a;b"}]}, "haproxy.0.backend"),
        ({"haproxy": [{"socket": "/s"}, {"socket": "/s"}]}, "haproxy.1.socket"),
    ],
)
def test_wrong_value_is_told_by_its_path(problems_of, changes, path):
    assert problems_of(changes)[path].is_error


@pytest.mark.parametrize(("margin", "ttl_s", "timeout_s"), [(-1, 5.0, 2), (-1, 2.0, 1), (5, 30.0, 25), (5, 6.0, 1)])
def test_watchdog_resets_the_host_before_the_lease_is_over(margin, ttl_s, timeout_s):
    assert WatchdogSection(safety_margin=margin).timeout_for(ttl_s) == timeout_s


def test_missing_password_says_what_to_write(problems_of):
    changes = {"postgresql": {"authentication": {"replication": {"password": None}}}}
    problem = problems_of(changes)["postgresql.authentication.replication.password"]
    assert problem.is_error
    assert "HAMGR_REPLICATION_PASSWORD" in problem.hint


def test_client_certificate_or_passfile_stands_for_a_password(load_with):
    roles = {"superuser": {"password": None, "sslcert": "/c"}, "replication": {"sslcert": "/c"}}
    assert load_with({"postgresql": {"authentication": roles}}).warnings == ()
    roles = {"superuser": {"password": None}}
    assert load_with({"postgresql": {"pgpass": "/p", "authentication": roles}}).warnings == ()


def test_loopback_address_beside_a_remote_etcd_is_a_warning(problems_of):
    problem = problems_of({"postgresql": {"connect_address": "127.0.0.1:5432"}})["postgresql.connect_address"]
    assert not problem.is_error


def test_parameter_that_hamgr_sets_itself_is_a_warning(problems_of):
    found = problems_of({"postgresql": {"parameters": {"listen_addresses": "*"}}})
    assert not found["postgresql.parameters.listen_addresses"].is_error


def laughs(form: str) -> str:
    """A few lines that stand for 9 ** 30 values."""
    lines = ["k0: &a0 {x: 1}"]
    lines += [f"k{at}: &a{at} {form.format(', '.join([f'*a{at - 1}'] * 9))}" for at in range(1, 31)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scope: main\nname: [db1\npostgresql:", "line"),
        ("scope: 'main\n", "line 2"),
        ("scope: a\nscope: b\n", "line 2, column 1: not valid YAML: the key scope stands twice"),
        ("scope: a\nname: *nowhere\n", "line 2, column 7"),
        ("scope: a\n---\nscope: b\n", "line 2"),
        ("scope: a\n\tname: b\n", "line 2"),
        ("a: !!python/object/apply:os.system [id]\n", "line 1"),
        ("a: \x07\n", "not valid YAML: character 4 is not allowed"),
        ("when: 2020-99-99\n", "line 1, column 7: not valid YAML: this is no timestamp"),
        ("ttl: !!int ''\n", "line 1, column 6: not valid YAML: this is no int"),
        ("pause: !!bool perhaps\n", "this is no bool"),
        (f"ttl: {'1' * 5000}\n", "this is no int"),
        ("[" * 5000, "nested more than 50 deep"),
        (
            "\n".join(["k0: &a0 1", *(f"k{at}: &a{at} [*a{at - 1}]" for at in range(1, 300))]),
            "nested more than 50 deep",
        ),
        ("", "is empty"),
        ("- scope\n", "is not a mapping"),
        ("just a text", "is not a mapping"),
        ("a: &x\n  b: *x\n", "line 1, column 4: not valid YAML: an alias repeats what it is part of"),
        (laughs("[{}]"), "with its aliases this is more than 100000 values"),
        (laughs("{{<<: [{}]}}"), "with its aliases this is more than 100000 values"),
    ],
)
def test_broken_file_is_told_by_line_without_a_traceback(load_text, text, said):
    with pytest.raises(SettingsError) as caught:
        load_text(text)
    assert said in str(caught.value)


def test_file_that_has_no_end_is_refused():
    with pytest.raises(SettingsError, match="larger than 4 MiB"):
        load(Path("/dev/zero"), {})


def test_half_written_file_is_an_error_wherever_it_ends(load_text, least_file):
    whole = yaml.safe_dump(least_file, sort_keys=True)
    end = whole.index("password")
    for cut in range(0, end, 7):
        with pytest.raises(SettingsError):
            load_text(whole[:cut])


def test_broken_file_does_not_show_the_password_beside_the_fault(load_text):
    with pytest.raises(SettingsError) as caught:
        load_text("password: geheim-1 {\n  x: [geheim-1\n")
    assert "geheim" not in str(caught.value)


def test_unreadable_file_says_why(tmp_path: Path):
    with pytest.raises(SettingsError, match="No such file"):
        load(tmp_path / "none.yml", {})
    with pytest.raises(SettingsError, match="Is a directory"):
        load(tmp_path, {})
    (tmp_path / "binary.yml").write_bytes(b"scope: \xff\xfe\n")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load(tmp_path / "binary.yml", {})


def test_environment_wins_over_file_and_hamgr_over_patroni(load_with):
    environ = {
        "HAMGR_NAME": "db9",
        "PATRONI_NAME": "db8",
        "PATRONI_SCOPE": "other",
        "HAMGR_NAMESPACE": "",
        "PATRONI_ETCD_HOSTS": "'e1:1','e2:2'",
        "HAMGR_REPLICATION_PASSWORD": "0815",
        "HAMGR_RESTAPI_USERNAME": "ops",
        "HAMGR_RESTAPI_PASSWORD": "of-ops",
    }
    loaded = load_with({}, environ)
    assert (loaded.settings.name, loaded.settings.scope) == ("db9", "other")
    assert loaded.settings.namespace == "/service/"
    assert loaded.settings.etcd3.endpoints == (Address("e1", 1), Address("e2", 2))
    assert loaded.settings.postgresql.authentication.replication.password.get_secret_value() == "0815"
    assert loaded.settings.restapi.authentication.username == "ops"
    assert loaded.origins["name"] == "environment HAMGR_NAME"
    assert loaded.origins["scope"] == "environment PATRONI_SCOPE"
    assert loaded.origins["etcd3.hosts"] == "environment PATRONI_ETCD_HOSTS"
    assert loaded.origins["postgresql.data_dir"] == "file"
    assert loaded.origins["bootstrap.dcs.ttl"] == "default"


def test_environment_alone_suffices(tmp_path: Path):
    path = tmp_path / "hamgr.yml"
    path.write_text("log: {level: debug}\n")
    environ = {
        "HAMGR_SCOPE": "main",
        "HAMGR_NAME": "db1",
        "HAMGR_ETCD3_HOSTS": "a:1",
        "HAMGR_POSTGRESQL_DATA_DIR": "/d",
        "HAMGR_POSTGRESQL_CONNECT_ADDRESS": "a:5432",
        "HAMGR_SUPERUSER_PASSWORD": "x",
        "HAMGR_REPLICATION_PASSWORD": "y",
    }
    assert load(path, environ).settings.log.level == "DEBUG"


def test_secrets_never_show(load_with):
    secret = "geheim"
    loaded = load_with(
        {
            "restapi": {
                "authentication": {"username": "u", "password": "geheim-3"},
                "http_extra_headers": {"Authorization": "geheim-4"},
            },
            "etcd3": {"username": "u", "password": "geheim-5"},
            "pgbouncer": [{"password": "geheim-6"}],
            "postgresql": {
                "parameters": {
                    "archive_command": "x --password=geheim-7",
                    "restore_command": "curl http://u:geheim-8@h/%f",
                    "my.conninfo": "geheim-9",
                },
                "pg_hba": ['host all all all ldap ldapbindpasswd="geheim-a b"'],
            },
            "tags": {"api_token": "geheim-b"},
        }
    )
    shown = "\n".join(f"{each.path} {each.value_shown}" for each in effective(loaded))
    assert secret not in shown
    assert "postgresql.authentication.superuser.password ***" in shown
    assert not any(word in repr(loaded.settings.postgresql.authentication) for word in ("geheim-1", "geheim-2"))
    assert not any(word in repr(loaded.settings.restapi.authentication) for word in ("geheim-3",))


def test_wrong_secret_is_not_quoted_in_the_problem(problems_of):
    changes = {"etcd3": {"password": ["geheim-1"]}, "restapi": {"listen": "geheim-2:x"}}
    assert "geheim" not in "".join(str(each) for each in problems_of(changes).values())


def test_effective_names_every_key_once_with_its_origin(load_with):
    loaded = load_with({"bootstrap": {"dcs": {"ttl": "30s"}}, "tags": {"site": "north"}})
    rows = {each.path: each for each in effective(loaded)}
    assert len(rows) == len(effective(loaded))
    assert (rows["bootstrap.dcs.ttl"].value_shown, rows["bootstrap.dcs.ttl"].origin) == ("30", "file")
    assert rows["tags.site"].value_shown == "north"
    assert rows["guard.runtime_dir"].value_shown == "/run/hamgr/main-db1"
    assert rows["guard.runtime_dir"].origin == "default"
    assert loaded.origins.keys() == rows.keys()


def test_a_rule_of_a_members_own_is_told_to_have_no_effect_beside_synchronous_mode(problems_of):
    changes = {
        "bootstrap": {"dcs": {"synchronous_mode": True}},
        "postgresql": {"parameters": {"synchronous_standby_names": "*"}},
    }
    problem = problems_of(changes)["postgresql.parameters.synchronous_standby_names"]
    assert not problem.is_error
    assert problems_of({"postgresql": changes["postgresql"]}) == {}


def test_a_watchdog_device_may_be_asked_for_without_a_warning(problems_of):
    assert problems_of({"watchdog": {"mode": "required"}}) == {}


def test_environment_says_of_all_pools_what_the_file_leaves_open(load_with):
    pools = [{"host": "one"}, {"host": "two", "username": "stats", "password": "of-two"}]
    environ = {"HAMGR_PGBOUNCER_USERNAME": "pooler", "HAMGR_PGBOUNCER_PASSWORD": "0815"}
    loaded = load_with({"pgbouncer": pools}, environ)
    one, two = loaded.settings.pgbouncer
    assert (one.username, one.password.get_secret_value()) == ("pooler", "0815")
    assert (two.username, two.password.get_secret_value()) == ("stats", "of-two")
    assert load_with({}, environ).settings.pgbouncer == ()


def test_environment_is_no_cure_for_a_list_that_is_none(problems_of):
    assert problems_of({"pgbouncer": "pooler"}, {"HAMGR_PGBOUNCER_PASSWORD": "x"})


def test_pools_and_load_balancers_are_taken_as_written(load_with):
    pools = [{"host": "::1", "databases": ["app"]}, {"host": "/run/pgbouncer", "pause_timeout": "500ms"}]
    balancers = [{"socket": "/run/haproxy.sock"}, {"socket": "10.0.0.5:9999", "backend": "writes"}]
    loaded = load_with({"pgbouncer": pools, "haproxy": balancers})
    assert loaded.warnings == ()
    assert [(pool.host, pool.databases, pool.pause_timeout) for pool in loaded.settings.pgbouncer] == [
        ("::1", ("app",), 2.0),
        ("/run/pgbouncer", (), 0.5),
    ]
    assert [(str(each.socket), each.backend) for each in loaded.settings.haproxy] == [
        ("/run/haproxy.sock", "primary"),
        ("10.0.0.5:9999", "writes"),
    ]
