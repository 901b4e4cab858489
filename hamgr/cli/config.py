"""What the command line needs of a configuration file: scope, etcd and REST. A member's whole file will do as well."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from hamgr.cli.context import Globals
from hamgr.cli.errors import BadConfig
from hamgr.cli.rest import RestAccess
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.remembered import SUFFIX
from hamgr.settings import CtlSection, EtcdSection, RestapiSection, SettingsError
from hamgr.settings.kinds import parse_hosts
from hamgr.settings.section import Section, option
from hamgr.settings.sort import fit, sort_out
from hamgr.settings.source import Source, add_environment, read_file

DEFAULT_FILES = (Path("/etc/hamgr/hamgr.yml"), Path("hamgr.yml"))


class CliFile(Section):
    """The part of a member's file that the command line reads; what else is wrong in it is not its concern."""

    scope: str = option("", "Name of the cluster.")
    namespace: str = option("/service/", "Where the cluster's keys stand in etcd.")
    etcd3: EtcdSection = Field(default=EtcdSection())
    restapi: RestapiSection = Field(default=RestapiSection())
    ctl: CtlSection = Field(default=CtlSection())


@dataclass(frozen=True, slots=True)
class CliConfig:
    """Where the cluster is and how to talk to it. `scope` is empty where the file names none."""

    scope: str
    namespace: str
    etcd: EtcdConfig
    rest: RestAccess
    memory: Path | None = None
    """What the member of this host remembers of the cluster; None where the file is no member's."""


def find_file(globals_: Globals, environ: Mapping[str, str]) -> Path | None:
    """The file named by -c or $HAMGR_CONFIG, which must exist, else the first default that does."""
    named = globals_.config_file or (Path(environ["HAMGR_CONFIG"]) if environ.get("HAMGR_CONFIG") else None)
    return named or next((path for path in DEFAULT_FILES if path.exists()), None)


def read_config(globals_: Globals, environ: Mapping[str, str] = os.environ) -> CliConfig:
    """File, environment and -d in one. Raises BadConfig that names each key at fault, or what to give."""
    path = find_file(globals_, environ)
    try:
        source = read_file(path) if path is not None else Source({})
    except SettingsError as problem:
        raise BadConfig(str(problem)) from problem
    if "etcd3" not in source.raw and "etcd" in source.raw:
        source.raw["etcd3"] = source.raw.pop("etcd")
    add_environment(source, environ)
    wanted = {key: value for key, value in source.raw.items() if key in CliFile.model_fields}
    known, problems = sort_out(wanted, CliFile, "", "", source.written)
    file, wrong = fit(CliFile, known, "")
    errors = [problem for problem in (*problems, *wrong) if problem.is_error]
    if errors:
        raise BadConfig(f"{path or 'environment'}:\n" + "\n".join(f"  {problem}" for problem in errors))
    config = replace(_config_of(file, insecure=globals_.insecure), memory=_memory_of(source.raw))
    if globals_.dcs_url:
        return _at_url(config, globals_.dcs_url)
    if not config.etcd.hosts[0]:
        where = f"{path} names" if path else "there is no configuration file and the environment names"
        raise BadConfig(f"{where} no etcd endpoint", "give -c FILE, or -d etcd3://HOST:PORT")
    return config


def member_data_dir(globals_: Globals, environ: Mapping[str, str] = os.environ) -> Path:
    """Data directory of the member whose file this is. Raises BadConfig where the file is no member's."""
    path = find_file(globals_, environ)
    if path is None:
        raise BadConfig("there is no configuration file", "give -c FILE, or --file RECORDING")
    try:
        source = read_file(path)
    except SettingsError as problem:
        raise BadConfig(str(problem)) from problem
    add_environment(source, environ)
    found = _data_dir_of(source.raw)
    if found is None:
        raise BadConfig(f"{path} names no postgresql.data_dir", "give -c a member's file, or --file RECORDING")
    return found


def _data_dir_of(raw: Mapping[str, Any]) -> Path | None:
    section = raw.get("postgresql")
    data_dir = section.get("data_dir") if isinstance(section, Mapping) else None
    return Path(data_dir) if isinstance(data_dir, str) and data_dir.strip("/") else None


def _memory_of(raw: Mapping[str, Any]) -> Path | None:
    data_dir = _data_dir_of(raw)
    return None if data_dir is None else data_dir.with_name(data_dir.name + SUFFIX)


def _config_of(file: CliFile, *, insecure: bool) -> CliConfig:
    section = file.etcd3
    hosts = tuple(str(endpoint) for endpoint in section.endpoints) or ("",)
    etcd = EtcdConfig(
        hosts,
        "https" if section.is_tls else "http",
        section.username,
        _secret(section.password),
        section.cacert,
        section.cert,
        section.key,
    )
    return CliConfig(file.scope, file.namespace, etcd, _rest_of(file, insecure=insecure))


def _rest_of(file: CliFile, *, insecure: bool) -> RestAccess:
    """`ctl` first; what it leaves out is taken from the member's own `restapi`."""
    ctl, restapi = file.ctl, file.restapi
    login: Any = ctl.authentication if ctl.authentication.username else restapi.authentication
    verify: bool | str = ctl.cacert or restapi.cafile or True
    certfile = ctl.certfile
    return RestAccess(
        login.username,
        _secret(login.password),
        False if insecure or ctl.insecure else verify,
        (certfile, ctl.keyfile or certfile) if certfile else None,
    )


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


def _at_url(config: CliConfig, url: str) -> CliConfig:
    """The configuration with etcd as the URL names it: etcd3://host:port,host:port/namespace. Raises BadConfig."""
    hint = "write -d etcd3://HOST:PORT[,HOST:PORT...][/NAMESPACE]"
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        hosts = parse_hosts(parts.netloc)
    except ValueError as problem:
        raise BadConfig(f"-d: {problem}", hint) from problem
    if parts.scheme not in ("", "etcd", "etcd3", "http", "https") or parts.query or parts.fragment:
        raise BadConfig("-d is not an address of etcd", hint)
    protocol = parts.scheme if parts.scheme in ("http", "https") else config.etcd.protocol
    namespace = f"{parts.path.rstrip('/')}/" if parts.path.strip("/") else config.namespace
    etcd = replace(config.etcd, hosts=tuple(map(str, hosts)), protocol=protocol)
    return replace(config, namespace=namespace, etcd=etcd)
