"""Text from elsewhere (records, errors, names) as it may stand on a page."""

from __future__ import annotations

import re

_LONGEST = 2000

_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write, escaped or not (section 2.2)."""


def shown(value: object) -> str:
    """The value as text without characters that XML cannot hold, cut where nobody would read on; None: nothing."""
    text = "" if value is None else str(value)
    clean = _NO_XML.sub("�", text)
    return clean if len(clean) <= _LONGEST else f"{clean[:_LONGEST]}…"
