"""The options that stand before the command, as every command gets them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Globals:
    """`hamgr -c FILE -d URL -k`; None where not given."""

    config_file: Path | None = None
    dcs_url: str | None = None
    insecure: bool = False
