"""Options that go together, or have no effect, and what is said of them."""

from __future__ import annotations

import pytest

LOGINS = {
    "restapi.authentication": lambda login: {"restapi": {"authentication": login}},
    "ctl.authentication": lambda login: {"ctl": {"authentication": login}},
    "etcd3": lambda login: {"etcd3": login},
}


@pytest.mark.parametrize("path", LOGINS)
@pytest.mark.parametrize("login", [{"username": "u"}, {"password": "geheim-1"}, {"username": "u", "password": ""}])
def test_half_a_login_is_an_error(problems_of, path, login):
    """A REST server with a password alone would ask nobody for it."""
    problem = problems_of(LOGINS[path](login))[path]
    assert problem.is_error
    assert problem.text == "username and password belong together"
    assert problem.hint == ("password is missing" if "username" in login else "username is missing")


@pytest.mark.parametrize("path", LOGINS)
@pytest.mark.parametrize("login", [{"username": "u", "password": "p"}, {"username": "", "password": ""}])
def test_a_whole_login_or_none_is_well(problems_of, path, login):
    assert problems_of(LOGINS[path](login)) == {}


@pytest.mark.parametrize("listen", ["*:8008", "0.0.0.0:8008", "10.0.0.1:8008", "[2001:db8::1]:8008", "db1:8008"])
def test_rest_that_takes_orders_from_everybody_is_warned_about(problems_of, listen):
    found = problems_of({"restapi": {"allowlist": None, "listen": listen}})
    assert [(path, each.is_error) for path, each in found.items()] == [("restapi.authentication", False)]


@pytest.mark.parametrize(
    "asks",
    [
        {"authentication": {"username": "u", "password": "p"}},
        {"certfile": "/c", "cafile": "/ca", "verify_client": "optional"},
        {"allowlist": ["ops.example"]},
        {"allowlist_include_members": True},
        {"listen": "127.0.0.2:8008", "connect_address": "10.0.0.1:8008"},
        {"listen": "[::1]:8008", "connect_address": "10.0.0.1:8008"},
        {"listen": "localhost:8008", "connect_address": "10.0.0.1:8008"},
    ],
)
def test_rest_that_asks_who_orders_or_is_of_this_host_only_is_well(problems_of, asks):
    assert problems_of({"restapi": {"allowlist": None, **asks}}) == {}


def test_login_of_rest_may_come_from_the_environment(problems_of):
    login = {"HAMGR_RESTAPI_USERNAME": "u", "HAMGR_RESTAPI_PASSWORD": "p"}
    assert problems_of({"restapi": {"allowlist": None}}, login) == {}


@pytest.mark.parametrize("name", ["HAMGR_RESTAPI_PASSWORD", "PATRONI_RESTAPI_USERNAME", "PATRONI_ETCD_PASSWORD"])
def test_half_a_login_in_the_environment_is_an_error_too(problems_of, name):
    assert [each.is_error for each in problems_of({}, {name: "x"}).values()] == [True]


def test_half_of_etcds_login_is_told_by_the_name_of_its_section(problems_of):
    assert "etcd" in problems_of({"etcd3": None, "etcd": {"hosts": "10.0.0.1:2379", "username": "u"}})


@pytest.mark.parametrize("certificate", [{"cacert": "/ca"}, {"cert": "/c", "key": "/k"}])
def test_certificates_beside_plain_http_are_told_to_have_no_effect(problems_of, certificate):
    assert not problems_of({"etcd3": certificate})["etcd3.protocol"].is_error
    assert problems_of({"etcd3": {"protocol": "https", **certificate}}) == {}
    assert problems_of({"etcd3": {"hosts": None, "url": "https://10.0.0.1:2379", **certificate}}) == {}


@pytest.mark.parametrize("tag", [{"replicatefrom": "db2"}, {"nostream": True}])
def test_tag_that_hamgr_does_not_act_on_is_told_to_have_no_effect(problems_of, tag):
    found = problems_of({"tags": tag})
    assert [(path, each.is_error) for path, each in found.items()] == [(f"tags.{next(iter(tag))}", False)]
    assert problems_of({"tags": {"replicatefrom": "", "nostream": False}}) == {}


@pytest.mark.parametrize("role", ["superuser", "replication", "rewind"])
def test_password_of_a_roles_key_is_told_to_have_no_effect(problems_of, role):
    path = f"postgresql.authentication.{role}.sslpassword"
    found = problems_of({"postgresql": {"authentication": {role: {"sslpassword": "geheim-3"}}}})
    assert not found[path].is_error
    assert "geheim" not in str(found[path])
    assert problems_of({}, {f"PATRONI_{role.upper()}_SSLPASSWORD": "geheim-3"}).keys() == {path}
    assert problems_of({"pgbouncer": [{"sslpassword": "geheim-3"}]}) == {}


@pytest.mark.parametrize("listen", ["127.0.0.1,10.0.0.11:8008", ",10.0.0.11:8008"])
def test_several_hosts_for_rest_are_an_error(problems_of, listen):
    problem = problems_of({"restapi": {"listen": listen}})["restapi.listen"]
    assert problem.is_error
    assert "several hosts" in problem.text
