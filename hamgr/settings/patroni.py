"""Keys that Patroni knows and hamgr does not (yet), by section: data for warnings.

Source: Patroni's pages "YAML Configuration Settings" and "Dynamic Configuration Settings" (versions 3 and 4), and
names that older versions took. `dcs` stands for dynamic configuration, whether in `bootstrap.dcs` or in etcd.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STORES = ("consul", "zookeeper", "exhibitor", "kubernetes", "raft")
"""Patroni's other stores."""

_CLIENT_OPTIONS = "sslcrldir gssencmode channel_binding sslnegotiation"
_ETCD = "use_proxies proxy srv srv_suffix version_prefix"

KEYS: Mapping[str, frozenset[str]] = {
    section: frozenset(names.split())
    for section, names in {
        "": "consul zookeeper exhibitor kubernetes raft citus mpp dcs",
        "log": (
            "traceback_level dateformat max_queue_size dir mode file_num file_size loggers static_fields "
            "deduplicate_heartbeat_logs"
        ),
        "bootstrap": "method users post_bootstrap post_init",
        "restapi": "ciphers https_extra_headers request_queue_size server_tokens auth thread_pool_size",
        "ctl": "keyfile_password certfile_password",
        "etcd3": _ETCD,
        "postgresql": (
            "callbacks bin_name config_dir custom_conf recovery_conf pg_ctl_timeout use_unix_socket_repl "
            "replica_method create_replica_method pre_promote before_stop use_pg_rewind use_slots database "
            "remove_data_directory_on_rewind_failure remove_data_directory_on_diverged_timelines pg_hosts "
            "citus_handler maximum_lag_on_failover name scope"
        ),
        "postgresql.authentication.superuser": _CLIENT_OPTIONS,
        "postgresql.authentication.replication": _CLIENT_OPTIONS,
        "postgresql.authentication.rewind": _CLIENT_OPTIONS,
        "watchdog": "driver",
        "dcs": (
            "primary_race_backoff max_timelines_history standby_cluster master_start_timeout master_stop_timeout "
            "retain_slots synchronous_node_constraint"
        ),
        "dcs.postgresql": (
            "recovery_conf parameters_primary parameters_replica parameters_standby_leader pg_hba_primary "
            "pg_hba_replica pg_hba_standby_leader pg_ident pg_ident_primary pg_ident_replica "
            "pg_ident_standby_leader pg_hosts pg_hosts_primary pg_hosts_replica pg_hosts_standby_leader "
            "callbacks pg_ctl_timeout create_replica_methods remove_data_directory_on_rewind_failure "
            "remove_data_directory_on_diverged_timelines"
        ),
    }.items()
}

HINTS: Mapping[str, str] = {
    "dcs": "dynamic configuration stands in bootstrap.dcs",
    "dcs.master_start_timeout": "write primary_start_timeout",
    "dcs.master_stop_timeout": "write primary_stop_timeout",
    "dcs.standby_cluster": "the cluster would start as a primary of its own: do not use this file as it is",
    "dcs.postgresql.pg_ident": "write it in postgresql.pg_ident of each member's file",
    "postgresql.use_pg_rewind": "write it in bootstrap.dcs.postgresql, for all members alike",
    "postgresql.use_slots": "write it in bootstrap.dcs.postgresql, for all members alike",
    "postgresql.pg_ctl_timeout": "starts and stops are bounded by primary_start_timeout and primary_stop_timeout",
    "postgresql.remove_data_directory_on_rewind_failure": "hamgr keeps the old directory aside and clones anew",
    "postgresql.remove_data_directory_on_diverged_timelines": "hamgr keeps the old directory aside and clones anew",
    "postgresql.pre_promote": "the promotion does not wait for it",
    "postgresql.before_stop": "a stop does not wait for it",
    "postgresql.callbacks": "the scripts are not run",
    "bootstrap.users": "create roles by SQL once the cluster runs",
    "bootstrap.post_bootstrap": "the script is not run",
    "bootstrap.post_init": "the script is not run",
    "bootstrap.method": "the first member runs initdb",
    "log.dir": "hamgr logs to its standard error; let the service manager keep it",
    "log.deduplicate_heartbeat_logs": "hamgr logs changes, not heartbeats",
    "restapi.thread_pool_size": "the REST server needs no threads",
    "etcd3.srv": "name the endpoints in hosts",
    "etcd3.proxy": "name the endpoints in hosts",
}


def patroni_hint(section: str, key: str) -> str | None:
    """What to do about a key that only Patroni knows, perhaps nothing (empty); None if Patroni has no such key."""
    if key not in KEYS.get(section, frozenset()):
        return None
    return HINTS.get(f"{section}.{key}" if section else key, "")


def custom_names(raw: Mapping[Any, Any], section: str) -> frozenset[str]:
    """Keys that a Patroni file defines itself: sections of custom bootstrap and replica creation methods."""
    if section == "bootstrap":
        named = [raw.get("method")]
    elif section == "postgresql":
        methods = raw.get("create_replica_methods") or raw.get("create_replica_method")
        named = methods if isinstance(methods, list) else [methods]
    else:
        named = []
    return frozenset(name for name in named if isinstance(name, str))
