"""What people mistype, and what damaged files hold: one error that says what to do, and no traceback."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from hamgr.__main__ import cli

BAD_CONFIG = 4
NO_UTF8 = "\udcff"


def hamgr(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    "url",
    [
        "etcd3://[::1:2379",
        "etcd3://[host]:2379",
        "::1",
        "etcd3://,/",
        "etcd3://host:port",
        "etcd3://host:99999",
        f"etcd3://host:{'1' * 5000}",
        "etcd3://two words:2379",
        "etcd3://user:secret@host:2379",
        f"etcd3://{NO_UTF8}:2379",
        "etcd3://host:2379/service?scope=demo",
        "ftp://host:2379",
    ],
)
def test_a_url_that_is_no_address_of_etcd_is_refused_with_the_form(url: str) -> None:
    result = hamgr("-d", url, "list", "demo")
    assert result.exit_code == BAD_CONFIG
    assert result.output.startswith("Error: -d")
    assert "write -d etcd3://HOST:PORT" in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize("words", [("-d", f"host/{NO_UTF8}", "list", "demo"), ("-d", "host", "list", NO_UTF8)])
def test_a_name_that_no_key_can_hold_is_refused(words: tuple[str, ...]) -> None:
    result = hamgr(*words)
    assert result.exit_code == BAD_CONFIG
    assert "must be UTF-8" in result.output


def test_a_cluster_that_is_named_by_slashes_only_is_refused() -> None:
    assert "must not be empty" in hamgr("-d", "host", "list", "//").output
