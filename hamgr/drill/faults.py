"""The table of faults, and names for what can be made of them: `a+b` at once, `again:a` during recovery."""

from __future__ import annotations

from hamgr.drill.fault import Fault, again, at_once
from hamgr.drill.faults_clock import CLOCK_FAULTS
from hamgr.drill.faults_container import CONTAINER_FAULTS
from hamgr.drill.faults_disk import DISK_FAULTS
from hamgr.drill.faults_load import LOAD_FAULTS
from hamgr.drill.faults_network import NETWORK_FAULTS
from hamgr.drill.faults_process import PROCESS_FAULTS
from hamgr.drill.faults_store import STORE_FAULTS

AGAIN = "again:"
TOGETHER = "+"

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        *PROCESS_FAULTS,
        *CONTAINER_FAULTS,
        *NETWORK_FAULTS,
        *STORE_FAULTS,
        *DISK_FAULTS,
        *CLOCK_FAULTS,
        *LOAD_FAULTS,
    )
}
"""By name, in the order in which a drill of everything goes through them."""


class UnknownFault(ValueError):
    """No such fault; the text lists those that exist."""


def fault_named(name: str) -> Fault:
    """The fault of the table, or what is made of several. Raises UnknownFault."""
    parts = [_part(word) for word in name.split(TOGETHER)]
    return parts[0] if len(parts) == 1 else at_once(parts)


def _part(word: str) -> Fault:
    plain = word.removeprefix(AGAIN)
    if plain not in FAULTS:
        raise UnknownFault(f"no fault named {plain!r}; there are: {', '.join(FAULTS)}")
    fault = FAULTS[plain]
    if plain == word:
        return fault
    if fault.moves_leader is False:
        raise UnknownFault(f"{plain} moves no leader: there is no next one to strike")
    return again(fault)
