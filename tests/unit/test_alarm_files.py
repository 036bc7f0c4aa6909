"""What stands beside the code of the alarms: Prometheus rules and the page on what to do bear their names alone."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from recorder.alarms.alarm import Alarm
from recorder.metrics import RecorderMetrics
from recorder.stats import AlarmStats, RecorderStats

ROOT = pathlib.Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "recorder-alarms.yml"
PAGE = ROOT / "docs" / "alarms.md"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def exported() -> dict[str, set[str]]:
    """Metrics of a recorder of which each alarm was raised, and the labels of their samples."""
    alarms = [AlarmStats(alarm.value, "orders", raised=True, raises=1) for alarm in Alarm]
    metrics = RecorderMetrics(read=lambda: RecorderStats(alarms=alarms))
    return {
        sample.name: set(sample.labels) for family in metrics.registry.collect() for sample in family.samples
    }


def test_every_alarm_has_a_rule_with_its_severity_and_a_runbook() -> None:
    """And no rule without an alarm: the severity is that in `system_events`, and the section is there."""
    assert {rule["alert"] for rule in rules()} == {alarm.value for alarm in Alarm}
    sections = {
        f"docs/alarms.md#{title.lower()}" for title in re.findall(r"^## (\w+)$", PAGE.read_text(), re.M)
    }
    for rule in rules():
        assert rule["labels"]["severity"] == Alarm(rule["alert"]).severity
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"] in sections


def test_rules_ask_for_metrics_that_are_exported() -> None:
    """Each name of ours in an expression is a sample's, with the labels that are asked for and shown."""
    there = exported()
    for rule in rules():
        names = re.findall(r"\brecorder_\w+", rule["expr"])
        assert names
        assert set(names) <= set(there), rule["expr"]
        for name, labels in re.findall(r"\b(recorder_\w+)\{([^}]*)\}", rule["expr"]):
            assert set(re.findall(r"(\w+)=", labels)) <= there[name]


def test_each_alarm_fires_its_own_rule() -> None:
    """The value that a raised alarm exports is the one that its rule waits for."""
    for alarm in Alarm:
        asked = [
            rule["expr"]
            for rule in rules()
            if rule["alert"] == alarm.value and "recorder_alarm" in rule["expr"]
        ]
        assert asked == [f'recorder_alarm{{alarm="{alarm.value}"}} == 1']


def test_prometheus_takes_the_rules() -> None:
    """promtool finds nothing wrong with them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here (Debian: prometheus); the rules were read as YAML alone")
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_has_a_section_an_alarm_with_what_to_do() -> None:
    """Meaning, what to look at, what to do."""
    text = PAGE.read_text(encoding="utf-8")
    for alarm in Alarm:
        section = text.split(f"\n## {alarm.value}\n", 1)[1].split("\n## ", 1)[0]
        assert f"**Means** ({alarm.severity})" in section
        assert "**Look at**" in section
        assert "**Do**" in section
