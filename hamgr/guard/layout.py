"""The memory page that guard and agent share: `<runtime_dir>/guard.page`.

Every word is 8 bytes, aligned, in the machine's (little-endian) order, and read or written by one load or
store, so that no reader sees half a value. **Each word has one writer** (the table in `SharedPage`). There
is no lock: what must be seen together is made safe by the order of the stores.

The agent arms by `SharedPage.arm`: deadline, then the postmaster's identity, then the arming word. It then sends
`ping` to the guard and waits for `pong`: that proves that the guard lives and makes it look at the page at
once (unarmed, it looks every 500 ms only). It calls `disarm` when the server's stop is complete, never before.

The arming word is a counter that never goes back: odd is armed, even is disarmed. The guard never writes it:
after a fence it stores the counter that it fenced in a word of its own, so that an arming which begins while a
fence ends cannot be wiped out by it.

Keep the runtime directory on tmpfs (`/run`): a page of a file on a hung disk can block its writer.

Used by the guard, so the standard library only, and little of that.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time

PAGE_NAME = "guard.page"
SOCKET_NAME = "guard.sock"
PAGE_BYTES = 4096
WORD_BYTES = 8
MAGIC = 0x48414D4752_0001_01  # "HAMGR", layout version 1
PRIORITY_NORMAL, PRIORITY_RAISED, PRIORITY_REALTIME = 0, 1, 2
WATCHDOG_OFF, WATCHDOG_ACTIVE, WATCHDOG_FAILED = 0, 1, 2
EXIT_REPLACE_ME = 75
EXIT_REFUSED_CONFIGURATION = 78
_BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id"


def boottime_ns() -> int:
    """Now on CLOCK_BOOTTIME in nanoseconds: never steps, counts suspend. The clock of every `_ns` word."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def read_boot_id(path: str = _BOOT_ID_PATH) -> tuple[int, int]:
    """High and low 64 bits of the kernel's boot id. Raises OSError when /proc is not mounted."""
    with open(path, "rb") as file:
        whole = int(file.read().strip().replace(b"-", b""), 16)
    return whole >> 64, whole & (2**64 - 1)


class Word:
    """One aligned 8-byte word of the page, shown as an attribute."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __get__(self, page: SharedPage, owner: object = None) -> int:
        return page.words[self.index]

    def __set__(self, page: SharedPage, value: int) -> None:
        page.words[self.index] = value


class SharedPage:
    """The open page. 0 in any word means "none" or "never"."""

    magic = Word(0)  # whoever makes the page, last of all
    boot_id_high = Word(1)  # whoever makes the page
    boot_id_low = Word(2)  # whoever makes the page

    arming = Word(8)  # agent (`arm`, `disarm`): odd = armed
    deadline_ns = Word(9)  # agent: CLOCK_BOOTTIME; 0 = no deadline
    postmaster_pid = Word(10)  # agent
    postmaster_start_ticks = Word(11)  # agent: field 22 of /proc/PID/stat
    term = Word(12)  # agent
    lease_id = Word(13)  # agent
    agent_heartbeat_ns = Word(14)  # agent
    agent_farewell = Word(15)  # agent: 1 + its exit status, stored right before it ends; 0 while it runs
    promised_until_ns = Word(16)  # agent: until then this member has promised a leader not to campaign
    tried_lease_id = Word(17)  # agent: the leader key is being moved to that lease; 0 = it is not
    tried_deadline_ns = Word(18)  # agent: no renewal of `lease_id` moves the deadline beyond this meanwhile

    guard_pid = Word(32)  # guard
    guard_start_ticks = Word(33)  # guard
    guard_heartbeat_ns = Word(34)  # guard: at least every 100 ms when armed, every 500 ms otherwise
    agent_pid = Word(35)  # guard
    agent_start_ticks = Word(36)  # guard
    agent_restarts = Word(37)  # guard: starts of the agent after the first one, since boot
    fenced_arming = Word(38)  # guard: the arming that its last fence ended
    fenced_at_ns = Word(39)  # guard: when its last fence found nothing left
    fenced_processes = Word(40)  # guard: how many processes that fence killed
    fence_began_ns = Word(41)  # guard: when its last fence began
    memory_locked = Word(42)  # guard: 1 = what it has touched stays in memory
    priority = Word(43)  # guard: PRIORITY_...
    watchdog = Word(44)  # guard: WATCHDOG_...
    supervised = Word(45)  # guard: 1 = not the agent, but a service manager starts the next one
    stand_in = Word(46)  # guard: 1 = started by the agent, makes room for one that was not
    newborn_pid = Word(47)  # guard: the last server that it forked, stored before that may go on to its program
    newborn_start_ticks = Word(48)  # guard

    __slots__ = ("_map", "words")

    def __init__(self, file_no: int) -> None:
        """Map an open file of PAGE_BYTES; the caller closes `file_no`."""
        self._map = mmap.mmap(file_no, PAGE_BYTES)
        self.words = memoryview(self._map).cast("Q")

    @classmethod
    def open(cls, runtime_dir: str) -> SharedPage:
        """The page of this boot, made (mode 0600) or wiped where there is none; same inode, never truncated.

        Raises OSError when the directory does not allow it.
        """
        path = os.path.join(runtime_dir, PAGE_NAME)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file_no = os.open(path, flags, 0o600)
        try:
            # Two that open it at once must not both wipe. A record lock: the guard's life-long one is a flock.
            fcntl.lockf(file_no, fcntl.LOCK_EX)
            sound = os.fstat(file_no).st_size == PAGE_BYTES
            if not sound:
                # Never below one page, or a process that has it mapped dies of SIGBUS.
                os.ftruncate(file_no, PAGE_BYTES)
            page = cls(file_no)
            boot_id = read_boot_id()
            if not sound or page.magic != MAGIC or (page.boot_id_high, page.boot_id_low) != boot_id:
                page._wipe(boot_id)
        finally:
            os.close(file_no)
        return page

    def _wipe(self, boot_id: tuple[int, int]) -> None:
        # The magic goes first and comes last: a half-made page is made again.
        for index in range(len(self.words)):
            self.words[index] = 0
        self.boot_id_high, self.boot_id_low = boot_id
        self.magic = MAGIC

    @property
    def armed(self) -> bool:
        """Whether the guard must kill the server at the deadline: armed, and not fenced since."""
        arming = self.arming
        return arming % 2 == 1 and arming != self.fenced_arming

    @property
    def is_spent(self) -> bool:
        """Armed, and fenced since: a server that starts now would be bound by no deadline."""
        arming = self.arming
        return arming % 2 == 1 and arming == self.fenced_arming

    def arm(self, deadline_ns: int, postmaster_pid: int, postmaster_start_ticks: int) -> None:
        """Agent only. Put the server under the deadline; identity 0, 0 = whatever runs in the data directory.

        Called before promotion and before a running primary is adopted. On a page that is armed it renews
        deadline and identity and leaves the arming as it is.
        """
        self.deadline_ns = deadline_ns
        self.name_postmaster(postmaster_pid, postmaster_start_ticks)
        if not self.armed:
            arming = self.arming
            self.arming = arming + 1 if arming % 2 == 0 else arming + 2

    def name_postmaster(self, pid: int, start_ticks: int) -> None:
        """Agent only. The server that the arming binds; deadline and arming stay as they are.

        A reader between the two stores sees a process that does not exist, and goes by the data directory.
        """
        self.postmaster_pid = pid
        self.postmaster_start_ticks = start_ticks

    def disarm(self) -> None:
        """Agent only. The server is stopped, or is a replica for certain: no deadline binds it."""
        arming = self.arming
        if arming % 2 == 1:
            self.arming = arming + 1

    def close(self) -> None:
        """Unmap."""
        self.words.release()
        self._map.close()


def offset_bytes(word: str) -> int:
    """Where the word of that name begins in the file, for a reader that has no mapping."""
    index: int = vars(SharedPage)[word].index
    return index * WORD_BYTES
