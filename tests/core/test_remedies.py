"""Every reason either holds nothing back, or says what would free it."""

from __future__ import annotations

from hamgr.core.reasons import Code
from hamgr.core.remedies import GOING_ON, REMEDIES, remedy
from hamgr.core.sentences import SENTENCES


def test_every_reason_is_of_one_kind() -> None:
    assert set(REMEDIES) | GOING_ON == set(Code)
    assert not set(REMEDIES) & GOING_ON


def test_whatever_makes_a_member_no_candidate_or_lets_it_wait_has_a_remedy() -> None:
    waiting = {
        code for code, words in SENTENCES.items() if words.startswith(("not a candidate", "waiting for", "paused"))
    }
    assert waiting <= set(REMEDIES)


def test_a_remedy_is_found_by_the_code_that_members_tell() -> None:
    assert remedy("not_in_sync") == REMEDIES[Code.NOT_IN_SYNC]
    assert remedy("leading") == remedy("of another version") == ""
