"""How the REST server listens and whom it lets change things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

Network = IPv4Network | IPv6Network
VerifyClient = Literal["none", "optional", "required"]


class ApiBroken(OSError):
    """The REST server cannot listen: the address is taken or not ours, or a certificate cannot be read."""

    is_retryable = False
    """Whether waiting helps, as it does until a host that boots has its addresses."""


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """`host` empty or '*': all addresses. Port 0: any free one. An empty username: no basic authentication.

    Client certificates and the allow-list, too, guard only the methods that change something; `required`
    alone makes every client show a certificate. Limits in seconds and bytes.
    """

    host: str = "127.0.0.1"
    port: int = 8008
    username: str = ""
    password: str = field(default="", repr=False)
    certfile: Path | None = None
    keyfile: Path | None = None
    keyfile_password: str = field(default="", repr=False)
    cafile: Path | None = None
    ciphers: str = ""
    verify_client: VerifyClient = "none"
    allowlist: tuple[Network, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    """Names of the allow-list, which stand for whatever addresses they have when a request comes."""
    allowlist_include_members: bool = False
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    idle_timeout_s: float = 60.0
    body_timeout_s: float = 5.0
    read_timeout_s: float = 5.0
    order_timeout_s: float = 600.0
    max_body_bytes: int = 256 * 1024

    @property
    def is_https(self) -> bool:
        return self.certfile is not None

    @property
    def has_allowlist(self) -> bool:
        return bool(self.allowlist or self.allowed_hosts)
