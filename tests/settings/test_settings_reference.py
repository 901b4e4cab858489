"""Page and sample are what the option table makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hamgr.settings import load
from hamgr.settings.patroni import KEYS
from hamgr.settings.reference import outputs, page
from hamgr.settings.table import Settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", outputs())
def test_generated_file_is_up_to_date(path):
    assert (ROOT / path).read_text() == outputs()[path], "run python -m hamgr.settings.reference"


def test_sample_loads_without_warning():
    loaded = load(ROOT / "config" / "hamgr.yml", {})
    assert loaded.warnings == ()
    assert len(loaded.settings.etcd3.endpoints) == 3


def test_page_has_every_effective_key_of_the_sample():
    text = page()
    loaded = load(ROOT / "config" / "hamgr.yml", {})
    given = [path for path in loaded.origins if ".parameters." not in path]
    assert [path for path in given if f"| `{path}` |" not in text] == []


def test_key_of_the_option_table_is_not_in_the_table_of_patronis_others():
    assert not KEYS[""] & Settings.model_fields.keys()
    postgresql = Settings.model_fields["postgresql"].annotation
    assert not KEYS["postgresql"] & postgresql.model_fields.keys()
