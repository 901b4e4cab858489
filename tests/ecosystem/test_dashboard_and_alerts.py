"""The Grafana dashboard and the alert rules: they load, and ask for nothing that no member shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_agent import FakeAgent, primary_state
from prometheus_client.parser import text_string_to_metric_families

from hamgr.api.metric_table import LABELS, METRICS
from hamgr.api.metrics import exposition
from hamgr.core.units import WallTime

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "config" / "grafana-dashboard.json"
ALERTS = ROOT / "config" / "prometheus-alerts.yml"
ALERTS_TEST = Path(__file__).with_name("alerts.yml")
PROMTOOL = shutil.which("promtool", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
SELECTOR = re.compile(r"\b((?:hamgr|patroni)_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?")
OF_HISTOGRAMS = ("_bucket", "_sum", "_count")
TARGETS = {"job", "instance"}
"""Labels that Prometheus adds."""

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the expression."""
    for panel in panels():
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    yield from ((each["name"], each["expr"]) for each in dashboard()["annotations"]["list"])
    yield from ((rule["alert"], rule["expr"]) for rule in rules())


def promtool(*arguments: str) -> str:
    """What it prints. AssertionError with that if it finds fault."""
    ran = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_every_metric_and_label_that_is_asked_for_is_in_the_table(place: str, expression: str) -> None:
    found = SELECTOR.findall(expression)
    assert found
    for name, matchers in found:
        plain = next((name.removesuffix(end) for end in OF_HISTOGRAMS if name.endswith(end)), name)
        described = METRICS.get(name) or METRICS.get(plain)
        if name == "up":
            continue
        assert described is not None, name
        assert (name == plain) == (described.kind != "histogram"), name
        asked = set(re.findall(r"([a-z_]+)\s*[=!]", matchers))
        assert asked <= {*LABELS, *TARGETS, *described.labels}, name


def test_what_the_expressions_ask_for_is_shown_by_a_member() -> None:
    """The stand-in shows all but what needs a state of its own, which test_metrics brings about."""
    text = exposition(FakeAgent(primary_state()), WallTime(0.0)).decode()
    shown = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    asked = {name for _, expression in expressions() for name, _ in SELECTOR.findall(expression)} - {"up"}
    rare = {
        "hamgr_vital_ok",
        "hamgr_lease_age_seconds",
        "hamgr_replica_flush_lag_bytes",
        "hamgr_last_failover_stage_seconds",
        "hamgr_failover_at_risk_bytes",
    }
    assert asked - shown == rare


def test_dashboard_is_one_that_grafana_imports() -> None:
    read = dashboard()
    assert read["schemaVersion"] >= 36
    assert {variable["name"]: variable["type"] for variable in read["templating"]["list"]} == {
        "datasource": "datasource",
        "scope": "query",
    }
    ids = [panel["id"] for panel in read["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", panel["title"]
            assert 'scope="$scope"' in target["expr"], panel["title"]


def test_panels_do_not_lie_upon_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                other = taken.setdefault((x, y), panel["title"])
                assert other == panel["title"], f"{other} and {panel['title']}"


def test_every_alert_says_what_to_do_and_is_tested() -> None:
    tested = ALERTS_TEST.read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "action"}
        assert f'"{rule["alert"]}"' in tested, rule["alert"]


@needs_promtool
def test_prometheus_understands_the_rules_and_they_fire_when_they_should() -> None:
    promtool("check", "rules", str(ALERTS))
    promtool("test", "rules", str(ALERTS_TEST))


@needs_promtool
def test_prometheus_understands_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    plain = {"$scope": "main", "$__range": "1h", "$__rate_interval": "1m"}
    recorded = []
    for number, (_, expression) in enumerate(expressions()):
        for variable, text in plain.items():
            expression = expression.replace(variable, text)
        recorded.append({"record": f"dashboard:{number}", "expr": expression})
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in promtool("check", "rules", str(path))


@needs_promtool
def test_prometheus_has_nothing_against_the_metrics() -> None:
    text = exposition(FakeAgent(primary_state()), WallTime(0.0))
    ran = subprocess.run([str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (ran.returncode, ran.stderr.decode()) == (0, "")
