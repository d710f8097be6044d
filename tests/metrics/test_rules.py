"""The alert rules that are shipped: each one fires when it should, and not before."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.prometheus import promtool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "etc" / "ajhost.rules.yml"
ON = 'job="ajhost", instance="h:9464"'
EVERY = "15s"


@dataclass(frozen=True, slots=True)
class Case:
    """Series as promtool writes them (`1x8 0x8`: value and how often more), and when the alert is quiet and fires."""

    alert: str
    series: Mapping[str, str]
    quiet: Sequence[str]
    fires: Sequence[str]
    labels: str
    severity: str = "warning"


CASES = [
    Case("AjhostDown", {f"up{{{ON}}}": "1x8 0x8"}, ["2m", "2m30s"], ["3m30s"], ON, "critical"),
    Case(
        "AjhostServesNobody",
        {
            f'ajhost_workers{{state="serving", {ON}}}': "2x8 0x8",
            f'ajhost_workers{{state="hung", {ON}}}': "0x16",
        },
        ["2m", "2m15s"],
        ["3m"],
        ON,
        "critical",
    ),
    Case(
        "AjhostSlotsDown",
        {f'ajhost_workers{{state="serving", {ON}}}': "2x8 1x12", f"ajhost_slots{{{ON}}}": "2x20"},
        ["2m", "3m"],
        ["3m30s"],
        ON,
    ),
    Case("AjhostDrainForgotten", {f"ajhost_draining{{{ON}}}": "0x8 1x300"}, ["5m", "60m"], ["63m"], ON),
    Case(
        "AjhostDisconnected",
        {
            f'ajhost_nats_connected{{slot="0", {ON}}}': "1x20",
            f'ajhost_nats_connected{{slot="1", {ON}}}': "1x8 0x12",
        },
        ["2m", "2m30s"],
        ["3m"],
        f'slot="1", {ON}',
    ),
    Case(
        "AjhostReconnects",
        {
            f'ajhost_nats_reconnects_total{{slot="0", {ON}}}': "0x8 0+1x20",
            f'ajhost_nats_reconnects_total{{slot="1", {ON}}}': "0x28",
            f"ajhost_slots{{{ON}}}": "2x28",
        },
        ["2m", "3m"],
        ["5m"],
        ON,
    ),
    Case(
        "AjhostRepliesRefused",
        {f'ajhost_nats_replies_refused_total{{slot="0", {ON}}}': "0x8 1x8"},
        ["1m", "2m"],
        ["3m"],
        ON,
        "critical",
    ),
    Case("AjhostWorkersDie", {f"ajhost_worker_deaths_total{{{ON}}}": "0x8 0+2x8"}, ["2m"], ["4m"], ON),
    Case("AjhostRestarts", {f"process_start_time_seconds{{{ON}}}": "1x4 2x2 3x2 4x20"}, ["2m"], ["3m30s"], ON),
    Case(
        "AjhostWorkersHang",
        {f'ajhost_workers{{state="hung", {ON}}}': "0x8 1x8"},
        ["2m", "3m"],
        ["3m30s"],
        ON,
    ),
    Case(
        "AjhostTasksFail",
        {
            f'ajhost_tasks_failed_total{{route="a", reason="handler error", {ON}}}': "0+3x120",
            f'ajhost_task_running_seconds_count{{route="a", {ON}}}': "0+10x120",
            f'ajhost_tasks_failed_total{{route="b", reason="handler error", {ON}}}': "0+1x120",
            f'ajhost_task_running_seconds_count{{route="b", {ON}}}': "0+10x120",
        },
        ["9m"],
        ["15m"],
        f'route="a", {ON}',
    ),
    Case(
        "AjhostTasksTooSlow",
        {f'ajhost_tasks_failed_total{{route="a", reason="deadline exceeded", {ON}}}': "0x8 0+1x30"},
        ["2m"],
        ["6m"],
        f'route="a", {ON}',
    ),
    Case(
        "AjhostOverloaded",
        {f'ajhost_requests_refused_total{{route="a", reason="overloaded", {ON}}}': "0x4 0+1x60"},
        ["1m", "4m"],
        ["8m"],
        ON,
    ),
    Case(
        "AjhostReloadRejected",
        {f'ajhost_reloads_total{{outcome="rejected", {ON}}}': "0x8 1x8"},
        ["2m"],
        ["3m"],
        f'outcome="rejected", {ON}',
    ),
]


def test_the_rules_are_well_formed() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)


def test_every_rule_has_a_case() -> None:
    assert {case.alert for case in CASES} == set(re.findall(r"- alert: (\w+)", RULES.read_text()))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_when_it_should_and_not_before(case: Case, tmp_path: Path) -> None:
    firing = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    labels = f'ALERTS{{alertname="{case.alert}", alertstate="firing", severity="{case.severity}", {case.labels}}}'
    fired = [{"labels": labels, "value": 1}]
    moments = [(at, fired if at in case.fires else []) for at in (*case.quiet, *case.fires)]
    _check(tmp_path, case.series, [(firing, at, samples) for at, samples in moments])


def test_a_host_that_is_drained_is_no_outage(tmp_path: Path) -> None:
    """The series of a host of two slots that is drained after two minutes."""
    series = {
        f'ajhost_workers{{state="serving", {ON}}}': "2x8 0x40",
        f'ajhost_workers{{state="drained", {ON}}}': "0x8 2x40",
        f'ajhost_nats_connected{{slot="0", {ON}}}': "1x48",
        f"ajhost_slots{{{ON}}}": "2x48",
        f"ajhost_draining{{{ON}}}": "0x8 1x40",
        f"up{{{ON}}}": "1x48",
    }
    _check(tmp_path, series, [('ALERTS{alertstate="firing"}', at, []) for at in ("3m", "5m", "10m")])


def _check(tmp_path: Path, series: Mapping[str, str], moments: Sequence[tuple[str, str, Sequence[object]]]) -> None:
    """Has promtool evaluate expressions at moments, and compare what they give."""
    tests = {
        "rule_files": [str(RULES)],
        "evaluation_interval": EVERY,
        "tests": [
            {
                "interval": EVERY,
                "input_series": [{"series": name, "values": text} for name, text in series.items()],
                "promql_expr_test": [
                    {"expr": expression, "eval_time": at, "exp_samples": samples} for expression, at, samples in moments
                ],
            }
        ],
    }
    file = tmp_path / "rules.test.yml"
    file.write_text(json.dumps(tests))
    promtool("test", "rules", file)
