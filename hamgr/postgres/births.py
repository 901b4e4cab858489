"""A note in the data directory: in which term the server's timeline was begun. Blocking: call through Disk."""

from __future__ import annotations

from pathlib import Path

from hamgr.core.server import NO_BIRTH, Birth
from hamgr.core.units import Term, Timeline
from hamgr.postgres import files

NOTE = "hamgr.timeline"
LONGEST = 64
"""Characters; two numbers of 64 bits have fewer."""


def read(data_dir: Path) -> Birth:
    """What the note says; zeros where there is none, or none that can be read: nothing is proven then."""
    words = (files.read_text(data_dir / NOTE) or "")[:LONGEST].split()
    if len(words) != 2 or not all(word.isascii() and word.isdecimal() for word in words):
        return NO_BIRTH
    return Birth(Timeline(int(words[0])), Term(int(words[1])))


def note(data_dir: Path, birth: Birth) -> Birth:
    """What the note says from now on, durably: that. One of the same timeline stays, as others have been told of it."""
    present = read(data_dir)
    if present.timeline == birth.timeline and present.term:
        return present
    files.write_if_changed(data_dir / NOTE, f"{birth.timeline} {birth.term}\n")
    return birth


def remove(data_dir: Path) -> None:
    """No note: that of another server, of which this directory is a copy now, may be of another timeline."""
    files.remove(data_dir / NOTE)
