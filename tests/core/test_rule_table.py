"""The rule table as a golden text: whoever changes the order of rules or a sentence sees it in the diff.

To renew it: python -m core.test_rule_table > tests/core/rules.golden.txt, with tests/ on the path.
"""

from __future__ import annotations

import re
from pathlib import Path

from hamgr.core.decide import RULES
from hamgr.core.reasons import Code, because
from hamgr.core.sentences import SENTENCES, sentence

HERE = Path(__file__).parent
GOLDEN = HERE / "rules.golden.txt"
CORE = HERE.parents[1] / "hamgr" / "core"


def dump() -> str:
    lines = ["Rules, in order: the first that applies answers.", ""]
    for number, rule in enumerate(RULES, 1):
        claim = " ".join((rule.__doc__ or "").split("\n\n")[0].split())
        lines.append(f"{number:2}. {rule.__module__.rpartition('.')[2]}.{rule.__name__}: {claim}")
    lines += ["", "Reasons.", ""]
    lines += [f"{code.value}: {SENTENCES[code]}" for code in Code]
    return "\n".join(lines) + "\n"


def test_rule_table_is_as_on_record() -> None:
    assert dump() == GOLDEN.read_text()


def test_every_rule_says_what_it_claims() -> None:
    assert [rule.__name__ for rule in RULES if not rule.__doc__] == []


def test_every_code_has_a_sentence() -> None:
    assert set(SENTENCES) == set(Code)


def test_a_sentence_without_its_values_is_still_one() -> None:
    assert all(sentence(because(code)) for code in Code)


def test_every_code_is_given_by_some_rule() -> None:
    texts = "".join(path.read_text() for path in sorted((CORE / "rules").glob("*.py")))
    given = {Code[name] for name in re.findall(r"Code\.([A-Z_]+)", texts) if name in Code.__members__}
    assert given == set(Code)


if __name__ == "__main__":
    print(dump(), end="")
