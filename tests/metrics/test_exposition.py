"""The metrics of a real host, as Prometheus takes them: well formed, true, and what rules and dashboard ask for."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from ajhost import __version__
from tests.host.test_http import fetch, scrape, scrape_until
from tests.support.host import Host, Section
from tests.support.nats import NatsServer, free_port
from tests.support.prometheus import Prometheus, promtool
from tests.support.router import Router, Verdict

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "etc" / "ajhost-dashboard.json"
RULES = ROOT / "etc" / "ajhost.rules.yml"
HANDLERS: Mapping[str, str | Section] = {
    "echo": "echo",
    "work": "work",
    "terminate": "terminate",
    "kill": "kill_self",
    "": {"target": "echo", "concurrency": 1},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    """A host that has served every kind of request."""
    folder: Path = tmp_path_factory.mktemp("metrics")
    address = f"127.0.0.1:{free_port()}"
    sections: dict[str, Section] = {"http": {"listen": address}, "workers": {"count": 2}}
    async with (
        NatsServer(folder) as server,
        Host(folder, nats=server.url, handlers=HANDLERS, sections=sections) as host,
        Router(server.url) as router,
    ):
        for _ in range(10):
            assert (await router.request("echo", b"x")).verdict is Verdict.COMPLETE
        assert (await router.request("catchall", b"x", task_type="other")).verdict is Verdict.COMPLETE
        assert (await router.request("work", {"sleep_ms": 300})).verdict is Verdict.COMPLETE
        assert (await router.request("work", {"kind": "error"})).word == "handler error:"
        assert (await router.request("terminate")).verdict is Verdict.TERMINATE
        assert (await router.request("kill")).word == "worker died:"
        assert (await router.reply(await router.send_raw("CHORIA_AJ.H.T.echo", b"{", None))).word
        yield host


@pytest.fixture(scope="module")
def listen(host: Host) -> str:
    """Where it listens."""
    address: str = tomllib.loads(host.file.read_text())["http"]["listen"]
    return address


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_promtool_finds_nothing_wrong_with_them(listen: str) -> None:
    text = (await fetch(listen, "/metrics")).text
    own = "".join(line for line in text.splitlines(keepends=True) if "process_" not in line)
    assert await asyncio.to_thread(promtool, "check", "metrics", text=own) == ""


async def test_they_say_what_became_of_the_requests_of_each_route(listen: str) -> None:
    samples = await scrape(listen)
    told = {name: value for name, value in samples.items() if "_total{" in name and "route=" in name and value}
    assert told == {
        'ajhost_requests_received_total{route="echo"}': 10,
        'ajhost_requests_received_total{route="catchall"}': 1,
        'ajhost_requests_received_total{route="work"}': 2,
        'ajhost_requests_received_total{route="terminate"}': 1,
        'ajhost_requests_received_total{route="kill"}': 1,
        'ajhost_requests_received_total{route="(none)"}': 1,
        'ajhost_requests_refused_total{reason="bad request",route="(none)"}': 1,
        'ajhost_tasks_completed_total{route="echo"}': 10,
        'ajhost_tasks_completed_total{route="catchall"}': 1,
        'ajhost_tasks_completed_total{route="work"}': 1,
        'ajhost_tasks_terminated_total{route="terminate"}': 1,
        'ajhost_tasks_failed_total{reason="handler error",route="work"}': 1,
        'ajhost_tasks_failed_total{reason="worker died",route="kill"}': 1,
    }
    assert samples['ajhost_tasks_failed_total{reason="deadline exceeded",route="echo"}'] == 0


async def test_histograms_hold_every_task_that_began(listen: str) -> None:
    samples = await scrape_until(listen, 'ajhost_task_running_seconds_sum{route="work"}', 0.3)
    for name in ("ajhost_task_running_seconds", "ajhost_task_waiting_seconds"):
        assert samples[f'{name}_count{{route="echo"}}'] == 10
        assert samples[f'{name}_bucket{{le="+Inf",route="work"}}'] == 2
    # how long the other one took depends on the machine
    assert samples['ajhost_task_running_seconds_bucket{le="0.2",route="work"}'] <= 1
    assert 0.3 <= samples['ajhost_task_running_seconds_sum{route="work"}'] < 60


async def test_they_say_which_version_runs_and_that_it_is_connected(listen: str) -> None:
    samples = await scrape_until(listen, "ajhost_ready", 1)  # the killed worker's successor
    (build,) = [name for name in samples if name.startswith("ajhost_build_info")]
    assert f'version="{__version__}"' in build
    assert samples["ajhost_ready"] == 1
    connected = {name: value for name, value in samples.items() if name.startswith("ajhost_nats_connected")}
    assert connected == {f'ajhost_nats_connected{{slot="{slot}"}}': 1 for slot in ("0", "1", "supervisor")}


async def test_what_the_dashboard_asks_for_is_there(listen: str, tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(expressions) > 20
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    async with Prometheus(tmp_path, [listen]) as prometheus:
        await prometheus.until("count_over_time(ajhost_build_info[1m]) > 20")
        for expression in expressions:
            assert set(re.findall(r"\$(\w+)", expression)) - {"__rate_interval"} <= names
            asked = re.sub(r"\$instance|\$route\b", ".*", expression).replace("$__rate_interval", "1m")
            found = await prometheus.query(asked)
            # what is shown only when there is any has nothing to show here
            assert found or "> 0" in asked, asked


async def test_what_the_rules_ask_for_is_there_and_none_fires_while_all_is_well(listen: str, tmp_path: Path) -> None:
    async with Prometheus(tmp_path, [listen], [RULES]) as prometheus:
        await prometheus.until("count_over_time(ajhost_build_info[1m]) > 20")
        assert await prometheus.alerts() == set()
        names = set(re.findall(r"\b(ajhost_[a-z_]+)", RULES.read_text()))
        for name in names:
            assert await prometheus.query(name), name


async def test_a_drained_host_is_on_the_dashboard_and_the_alert_for_a_forgotten_one_begins_to_count(
    host: Host, listen: str, tmp_path: Path
) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    (expression,) = [t["expr"] for p in panels if p["title"] == "Drained hosts" for t in p["targets"]]
    drained = expression.replace("$instance", ".*")
    async with Prometheus(tmp_path, [listen], [RULES]) as prometheus:
        await prometheus.until(f"{drained} == 0")
        assert (await host.command("drain")).status == 0
        await prometheus.until(f"{drained} == 1")
        await prometheus.until('ALERTS{alertname="AjhostDrainForgotten", alertstate="pending"}')
        assert await prometheus.alerts() == set()
        assert (await host.command("resume")).status == 0
        await prometheus.until(f"{drained} == 0")
