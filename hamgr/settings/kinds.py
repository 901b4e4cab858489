"""Kinds of values that options take: how each is written in YAML, and what it means.

Every parser raises ValueError with a text that names what is expected and never repeats the value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainValidator

SECONDS = {"us": 1e-6, "ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
MIN_RECORDING_BYTES, MAX_RECORDING_BYTES = 64 << 10, 1 << 30
MAX_LABEL = 63
"""Of a name's part between two dots. Source: RFC 1035, 2.3.4; the resolver raises for longer and empty ones."""
WILDCARDS = ("", "*", "0.0.0.0", "::")
_NUMBER = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LABEL = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_LABEL}}}")
_DATABASE = re.compile(r"[A-Za-z0-9_.-]+")
_PROXY = re.compile(r"[A-Za-z0-9_.:-]+")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")


@dataclass(frozen=True, slots=True)
class Address:
    """Where something can be reached. `host` without brackets, also for IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a server listens: one port on one or more local addresses; `*` means all of them."""

    hosts: tuple[str, ...]
    port: int

    @property
    def is_wildcard(self) -> bool:
        """True if the first address says "all of this host's", so that nobody can connect by that name."""
        return self.hosts[0] in WILDCARDS

    def __str__(self) -> str:
        hosts = [f"[{host}]" if ":" in host else host for host in self.hosts]
        return f"{','.join(hosts)}:{self.port}"


def parse_seconds(value: object) -> float:
    """Seconds from a number, or from PostgreSQL's `500ms`, `5s`, `1min`, `2h`, `1d`."""
    seconds = _seconds(value)
    if not math.isfinite(seconds):
        raise ValueError("is not a finite time")
    return seconds


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("is more seconds than there are") from None
    found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    factor = SECONDS.get(found[2] or "s") if found else None
    if found is None or factor is None:
        raise ValueError("is not a time: write seconds as a number, or 500ms, 5s, 1min, 2h, 1d")
    return float(found[1]) * factor


def parse_bytes(value: object) -> int:
    """Bytes from an integer, or from PostgreSQL's `512kB`, `1MB`, `2GB` (powers of 1024)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(value)
    found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    factor = BYTES.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise ValueError("is not an amount of data: write bytes as an integer, or 512kB, 1MB, 2GB")
    return _bounded(float(found[1]) * factor)


def _bounded(size: float) -> int:
    """Positions in WAL have 64 bits."""
    if abs(size) >= 1 << 63:
        raise ValueError("is more data than PostgreSQL counts")
    return int(size)


def parse_recording_size(value: object) -> int:
    """Bytes that a recording may take: none, or enough for some changes of leader."""
    size = parse_bytes(value)
    if size != 0 and not MIN_RECORDING_BYTES <= size <= MAX_RECORDING_BYTES:
        raise ValueError("must be 0 (nothing is recorded), or 64kB to 1GB")
    return size


def split_host_port(text: str, default_port: int | None) -> Address:
    """Host and port of `host:port`, `[v6]:port` or a bare host where there is a default port."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text.strip(), "" if default_port is None else str(default_port)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("is not host:port: write an IPv6 address in brackets, [::1]:5432")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError("is not host:port with a port of 1 to 65535")
    if re.search(r"[\s/@\ud800-\udfff]", host):
        raise ValueError("is not host:port: the host holds a blank, '/', '@' or what is no UTF-8 text")
    if host and not all(0 < len(label) <= MAX_LABEL for label in host.removesuffix(".").split(".")):
        raise ValueError(f"is not host:port: between dots stand 1 to {MAX_LABEL} characters of the host's name")
    return Address(host, int(port))


def _parse_address(value: object, default_port: int | None) -> Address:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError("is not host:port")
    address = split_host_port(value, default_port)
    if address.host in WILDCARDS:
        raise ValueError("must name this host as others reach it, not a wildcard")
    return address


def _parse_listen(value: object, default_port: int) -> Listen:
    if isinstance(value, Listen):
        return value
    if not isinstance(value, str):
        raise ValueError("is not host:port")
    *others, last = value.split(",")
    end = split_host_port(last, default_port)
    hosts = (*(other.strip().strip("[]") for other in others), end.host)
    return Listen(tuple(host or "*" for host in hosts), end.port)


def parse_rest_listen(value: object) -> Listen:
    """`restapi.listen`; port 8008 unless given."""
    listen = _parse_listen(value, 8008)
    if len(listen.hosts) > 1:
        raise ValueError("names several hosts: REST listens on one address, or on all of this host's (*:8008)")
    return listen


def parse_server_listen(value: object) -> Listen:
    """`postgresql.listen`: comma separated hosts, one port at the end; 5432 unless given."""
    return _parse_listen(value, 5432)


def parse_rest_address(value: object) -> Address:
    """`restapi.connect_address`; port 8008 unless given."""
    return _parse_address(value, 8008)


def parse_server_address(value: object) -> Address:
    """An address of PostgreSQL or a pool before it; port 5432 unless given."""
    return _parse_address(value, 5432)


def parse_hosts(value: object) -> tuple[Address, ...]:
    """etcd's endpoints from a list or a comma separated string; port 2379 unless given."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise ValueError("is not a list of host:port")
    cleaned = [part.strip().strip("'\"") if isinstance(part, str) else part for part in parts]
    if cleaned and not any(cleaned):
        raise ValueError("names no endpoint of etcd: write for example 10.0.0.11:2379")
    return tuple(part if isinstance(part, Address) else _parse_address(part, 2379) for part in cleaned if part)


def parse_host(value: object) -> Address:
    """One etcd endpoint; port 2379 unless given."""
    return _parse_address(value, 2379)


def parse_lines(value: object) -> tuple[str, ...]:
    """Lines of a PostgreSQL file, each one non-empty string without a line break inside."""
    if not isinstance(value, list | tuple) or not all(isinstance(line, str) for line in value):
        raise ValueError("is not a list of lines (each a string)")
    lines = tuple(line.strip() for line in value)
    if any(re.search(r"[\x00-\x08\x0a-\x1f]", line) for line in lines):
        raise ValueError("a line holds a line break or control character")
    return tuple(line for line in lines if line)


def _flag(item: object) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, Mapping) and len(item) == 1:
        name, value = next(iter(item.items()))
        if isinstance(name, str) and isinstance(value, str | int | float):
            if isinstance(value, bool):
                return name if value else ""
            return f"{name}={value}"
    raise ValueError("is not a list of options, each `name` or `name: value`")


def parse_flags(value: object) -> tuple[str, ...]:
    """Long options of a program, without their dashes: `data-checksums`, `encoding=UTF8`."""
    if isinstance(value, Mapping):
        value = [{name: given} for name, given in value.items()]
    if not isinstance(value, list | tuple):
        raise ValueError("is not a list of options, each `name` or `name: value`")
    flags = tuple(_flag(item).removeprefix("--") for item in value)
    if any(re.search(r"[\x00-\x1f]", flag) for flag in flags):
        raise ValueError("an option holds a control character")
    return tuple(flag for flag in flags if flag)


def _parameter(name: object, value: object) -> str:
    if not isinstance(name, str) or not _PARAMETER.fullmatch(name):
        raise ValueError("holds a name that is not one of a PostgreSQL parameter")
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        value = ",".join(str(part) for part in value)
    text = str(value) if isinstance(value, str | int | float) else "\0"
    if re.search(r"[\x00-\x08\x0a-\x1f]", text):
        raise ValueError(f"the value of {name} is not a plain value of one line")
    return text


def parse_parameters(value: object) -> dict[str, str]:
    """PostgreSQL parameters as its configuration file writes them: booleans as on and off. null: left out."""
    if not isinstance(value, Mapping):
        raise ValueError("is not a mapping of PostgreSQL parameters")
    return {name: _parameter(name, given) for name, given in value.items() if given is not None}


def parse_synchronous_mode(value: object) -> str:
    """`off`, `on` or `quorum`; YAML's booleans are on and off."""
    text = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
    words = {"true": "on", "yes": "on", "false": "off", "no": "off"}
    word = words.get(text.lower(), text.lower()) if isinstance(text, str) else ""
    if word not in ("off", "on", "quorum"):
        raise ValueError("is not one of off, on, quorum")
    return word


def parse_path(value: object) -> str:
    """An absolute path; the empty string where none is given."""
    if not isinstance(value, str) or (value and not value.startswith("/")) or "\0" in value:
        raise ValueError("is not an absolute path")
    return value.rstrip("/") or value[:1]


def parse_one_host(value: object) -> str:
    """A host's name or address, or the absolute path of a directory."""
    if not isinstance(value, str) or not value or re.search(r"[\s,@\x00-\x1f]", value):
        raise ValueError("is not one host, nor the absolute path of a socket's directory")
    if not value.startswith("/") and "/" in value:
        raise ValueError("is not an absolute path of a socket's directory")
    return value.strip("[]")


def parse_runtime_socket(value: object) -> Address | str:
    """The absolute path of a Unix socket, or host:port."""
    if isinstance(value, str) and value.startswith("/"):
        return parse_path(value)
    if isinstance(value, str) and ":" not in value:
        raise ValueError("is neither the absolute path of a socket nor host:port")
    return _parse_address(value, None)


def parse_databases(value: object) -> tuple[str, ...]:
    """Names of databases as they may stand in PgBouncer's file without quotes."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError("is not a list of databases")
    if not all(_DATABASE.fullmatch(name) for name in value):
        raise ValueError("holds what is no database's name of letters, digits, '_', '.' and '-'")
    return tuple(dict.fromkeys(value))


def parse_backend(value: object) -> str:
    """The name of a section of HAProxy's file."""
    if not isinstance(value, str) or not _PROXY.fullmatch(value):
        raise ValueError("is not the name of a backend (letters, digits, '_', '.', ':' and '-')")
    return value


def parse_networks(value: object) -> tuple[str, ...]:
    """Addresses, networks (CIDR) and names of hosts that a caller's address is compared with."""
    # As text, from the environment, perhaps as YAML's list: ['10.0.0.0/8', '10.0.1.1'].
    parts = value.strip().removeprefix("[").removesuffix("]").split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("is not a list of addresses, networks and names of hosts")
    entries = tuple(part.strip().strip("'\"") for part in parts)
    if not all(is_network(entry) or _is_host_name(entry) for entry in entries):
        raise ValueError("holds what is neither address nor network nor the name of a host")
    return entries


def is_network(text: str) -> bool:
    """An address or a network, not a name."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_host_name(text: str) -> bool:
    """Its last part is no number: that would be an address with a slip in it. Source: RFC 1123, 2.1."""
    *_, last = labels = text.removesuffix(".").split(".")
    return all(_LABEL.fullmatch(label) for label in labels) and not last.isdigit()


def parse_headers(value: object) -> dict[str, str]:
    """HTTP headers: names and values of one line."""
    if not isinstance(value, Mapping):
        raise ValueError("is not a mapping of HTTP headers")
    headers = {str(name): str(given) for name, given in value.items()}
    for name, given in headers.items():
        if not _HEADER.fullmatch(name) or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", given):
            raise ValueError("holds a name or value that HTTP does not allow")
    return headers


def parse_data_dir(value: object) -> str:
    """The absolute path of a directory of its own."""
    path = parse_path(value)
    if path in ("", "/"):
        raise ValueError("is not an absolute path of a directory of its own")
    return path


def _parse_mode(value: object) -> object:
    """YAML reads a bare `off` as false: give the word back."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def parse_scalar(value: object) -> str | int | float | bool:
    """A tag's value."""
    if not isinstance(value, str | int | float | bool):
        raise ValueError("is not a plain value (text, number or boolean)")
    return value


Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Bytes = Annotated[int, BeforeValidator(parse_bytes)]
RecordingSize = Annotated[int, PlainValidator(parse_recording_size)]
RestListen = Annotated[Listen, PlainValidator(parse_rest_listen)]
RestAddress = Annotated[Address, PlainValidator(parse_rest_address)]
ServerListen = Annotated[Listen, PlainValidator(parse_server_listen)]
ServerAddress = Annotated[Address, PlainValidator(parse_server_address)]
EtcdHost = Annotated[Address, PlainValidator(parse_host)]
EtcdHosts = Annotated[tuple[Address, ...], PlainValidator(parse_hosts)]
Lines = Annotated[tuple[str, ...], PlainValidator(parse_lines)]
Flags = Annotated[tuple[str, ...], PlainValidator(parse_flags)]
Parameters = Annotated[dict[str, str], PlainValidator(parse_parameters)]
SynchronousMode = Annotated[str, PlainValidator(parse_synchronous_mode)]
AbsolutePath = Annotated[str, PlainValidator(parse_path)]
OneHost = Annotated[str, PlainValidator(parse_one_host)]
RuntimeSocket = Annotated[Address | str, PlainValidator(parse_runtime_socket)]
Databases = Annotated[tuple[str, ...], PlainValidator(parse_databases)]
BackendName = Annotated[str, PlainValidator(parse_backend)]
Networks = Annotated[tuple[str, ...], PlainValidator(parse_networks)]
Headers = Annotated[dict[str, str], PlainValidator(parse_headers)]
DataDirectory = Annotated[str, PlainValidator(parse_data_dir)]
Word = BeforeValidator(_parse_mode)

NAMES: Mapping[Any, str] = {
    Seconds: "time",
    Bytes: "size",
    RecordingSize: "size",
    RestListen: "host:port",
    RestAddress: "host:port",
    ServerListen: "hosts:port",
    ServerAddress: "host:port",
    EtcdHost: "host:port",
    EtcdHosts: "list of host:port",
    Lines: "list of lines",
    Flags: "list of options",
    Parameters: "mapping",
    SynchronousMode: "off, on, quorum",
    AbsolutePath: "path",
    DataDirectory: "path",
    OneHost: "host",
    RuntimeSocket: "path or host:port",
    Databases: "list of names",
    BackendName: "name",
    Networks: "list of networks and hosts",
    Headers: "mapping",
}
"""What the reference page calls each kind."""
