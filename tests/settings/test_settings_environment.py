"""What the environment may say, and that what it says in vain is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hamgr.settings.source import environment_names, unread_variables
from hamgr.settings.table import Settings

ROOT = Path(__file__).parents[2]
ROLE_OPTIONS = {
    "USERNAME": "someone",
    "PASSWORD": "0815",
    "SSLMODE": "verify-full",
    "SSLKEY": "/k",
    "SSLCERT": "/c",
    "SSLROOTCERT": "/ca",
    "SSLCRL": "/crl",
}


@pytest.mark.parametrize("prefix", ["HAMGR_", "PATRONI_"])
@pytest.mark.parametrize("role", ["superuser", "replication", "rewind"])
def test_every_option_of_a_role_has_patronis_variable(load_with, prefix, role):
    loaded = load_with({}, {f"{prefix}{role.upper()}_{name}": value for name, value in ROLE_OPTIONS.items()})
    found = getattr(loaded.settings.postgresql.authentication, role)
    assert loaded.warnings == ()
    assert found.password.get_secret_value() == "0815"
    others = {name: getattr(found, name.lower()) for name in ROLE_OPTIONS if name != "PASSWORD"}
    assert others == {name: value for name, value in ROLE_OPTIONS.items() if name != "PASSWORD"}
    assert loaded.origins[f"postgresql.authentication.{role}.sslmode"] == f"environment {prefix}{role.upper()}_SSLMODE"


@pytest.mark.parametrize("allowlist", ["10.0.0.0/8,192.168.1.7", "['10.0.0.0/8', '192.168.1.7']"])
def test_access_to_rest_can_be_given_as_patroni_takes_it(load_with, allowlist):
    environ = {
        "PATRONI_RESTAPI_CERTFILE": "/c",
        "PATRONI_RESTAPI_KEYFILE": "/k",
        "PATRONI_RESTAPI_KEYFILE_PASSWORD": "geheim-3",
        "PATRONI_RESTAPI_CAFILE": "/ca",
        "PATRONI_RESTAPI_VERIFY_CLIENT": "required",
        "PATRONI_RESTAPI_ALLOWLIST": allowlist,
        "PATRONI_RESTAPI_ALLOWLIST_INCLUDE_MEMBERS": "on",
    }
    loaded = load_with({}, environ)
    restapi = loaded.settings.restapi
    assert loaded.warnings == ()
    assert (restapi.certfile, restapi.keyfile, restapi.cafile, restapi.verify_client) == ("/c", "/k", "/ca", "required")
    assert restapi.keyfile_password.get_secret_value() == "geheim-3"
    assert restapi.allowlist == ("10.0.0.0/8", "192.168.1.7")
    assert restapi.allowlist_include_members


def test_how_the_command_line_calls_rest_can_be_given_as_patroni_takes_it(load_with):
    environ = {
        "PATRONI_CTL_INSECURE": "true",
        "PATRONI_CTL_CACERT": "/ca",
        "PATRONI_CTL_CERTFILE": "/c",
        "PATRONI_CTL_KEYFILE": "/k",
        "PATRONI_CTL_USERNAME": "ops",
        "PATRONI_CTL_PASSWORD": "geheim-3",
    }
    loaded = load_with({}, environ)
    ctl = loaded.settings.ctl
    assert loaded.warnings == ()
    assert (ctl.insecure, ctl.cacert, ctl.certfile, ctl.keyfile) == (True, "/ca", "/c", "/k")
    assert (ctl.authentication.username, ctl.authentication.password.get_secret_value()) == ("ops", "geheim-3")


def test_variable_that_nothing_reads_is_a_warning_without_its_value(problems_of):
    environ = {
        "HAMGR_RESTAPI_CERFILE": "geheim",
        "PATRONI_RESTAPI_HTTP_EXTRA_HEADERS": "geheim",
        "PATRONI_CONFIG": "geheim",
        "HAMGR_NONSENSE": "",
        "PATH": "/bin",
    }
    found = problems_of({}, environ)
    assert found.keys() == {"HAMGR_RESTAPI_CERFILE", "PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", "PATRONI_CONFIG"}
    assert found["HAMGR_RESTAPI_CERFILE"].hint == "did you mean HAMGR_RESTAPI_CERTFILE?"
    assert not any(each.is_error or "geheim" in str(each) for each in found.values())


def test_variables_that_another_part_of_the_project_reads_are_not_warned_about():
    files = [ROOT / "docker-compose.yml"]
    files += [each for at in ("hamgr", "scripts", "config") for each in (ROOT / at).rglob("*") if each.is_file()]
    used = {
        name
        for path in files
        if path.suffix != ".pyc"
        for name in re.findall(r"\bHAMGR_[A-Z0-9_]*[A-Z0-9]\b", path.read_text(encoding="utf-8", errors="replace"))
    }
    assert {"HAMGR_RUNTIME_DIR", "HAMGR_CONFIG", "HAMGR_POOL_PORT"} <= used
    assert list(unread_variables(dict.fromkeys(used, "x"))) == []


def test_no_variable_stands_for_two_options():
    names = [name for _, name in environment_names(Settings)]
    assert len(names) == len(set(names))
