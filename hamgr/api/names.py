"""Host names of callers that are let in, looked up beside the loop: of the allow-list, and of members' addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

FRESH_S = 5.0
"""So long a name is not looked up again, however many requests come."""
FIRST_ANSWER_S = 1.0
"""How long a request waits for a name that was never found."""
NEXT_ANSWER_S = 0.2
"""And for one that was: its last answer counts then. An outage of the name service often comes with one of etcd."""
NO_SUCH_NAME = (socket.EAI_NONAME, socket.EAI_NODATA)


class Names:
    """Addresses behind names. A name service that does not answer leaves what it said last in force."""

    def __init__(self) -> None:
        self._known: dict[str, frozenset[str]] = {}
        self._due_at: dict[str, float] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def addresses_of(self, hosts: Iterable[str]) -> frozenset[str]:
        """All their addresses, as `plain_address` writes them; a name that is not found in time counts for nothing."""
        asked = set(hosts)
        self.look_up(asked)
        await asyncio.gather(*(self._wait_for(host) for host in asked))
        return self._found(asked)

    def last_addresses_of(self, hosts: Iterable[str]) -> frozenset[str]:
        """The same by the last answers, without waiting for any."""
        self.look_up(hosts)
        return self._found(hosts)

    def look_up(self, hosts: Iterable[str]) -> None:
        """Names whose answers are old are being looked up."""
        now = asyncio.get_running_loop().time()
        for host in hosts:
            if host not in self._looking and now >= self._due_at.get(host, now):
                self._due_at[host] = now + FRESH_S
                self._looking[host] = asyncio.create_task(self._ask(host))

    async def _wait_for(self, host: str) -> None:
        if host in self._looking:
            limit_s = NEXT_ANSWER_S if host in self._known else FIRST_ANSWER_S
            await asyncio.wait({self._looking[host]}, timeout=limit_s)

    async def _ask(self, host: str) -> None:
        try:
            rows = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            self._known[host] = frozenset(plain for row in rows if (plain := plain_address(str(row[4][0]))))
        except UnicodeError:
            # Of a name that none can have.
            self._known.pop(host, None)
        except OSError as problem:
            if problem.errno in NO_SUCH_NAME:
                self._known.pop(host, None)
        finally:
            del self._looking[host]

    def _found(self, hosts: Iterable[str]) -> frozenset[str]:
        return frozenset(address for host in hosts for address in self._known.get(host, ()))


def plain_address(address: str) -> str | None:
    """An address without zone, and as IPv4 where it is one in IPv6's clothes; None: not an address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)
