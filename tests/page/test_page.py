"""The page at `/` in a real browser, of a real host: what an operator sees, by mouse, keyboard and on a phone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Callable

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.factories import StartHost
from tests.support.host import Host, Section
from tests.support.nats import NatsServer
from tests.support.router import Router

ROUTES = {"echo": "echo", "work": "work", "kill": "kill_self", "fail": "error", "team:": "echo", "": "echo"}


@pytest.fixture
def listen() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
async def host(start_host: StartHost, nats_server: NatsServer, listen: str) -> Host:
    sections: dict[str, Section] = {"http": {"listen": listen}, "workers": {"count": 2}}
    return await start_host(nats=nats_server.url, handlers=ROUTES, sections=sections)


def text(browser: webdriver.Chrome, place: str) -> str:
    return str(browser.execute_script(f"return document.getElementById({place!r}).innerText"))


async def until(browser: webdriver.Chrome, condition: Callable[[webdriver.Chrome], object]) -> None:
    from selenium.webdriver.support.wait import WebDriverWait  # not at the top: it imports all of the driver

    await asyncio.to_thread(WebDriverWait(browser, 20).until, condition)


async def open_page(browser: webdriver.Chrome, listen: str) -> None:
    await asyncio.to_thread(browser.get, f"http://{listen}/")
    await until(browser, lambda b: "workers serve" in text(b, "state"))


async def test_an_operator_sees_what_the_host_does(
    host: Host, nats_server: NatsServer, listen: str, browser: webdriver.Chrome, router: Router
) -> None:
    await open_page(browser, listen)
    assert text(browser, "state") == "ready: 2 of 2 workers serve"
    assert nats_server.url.removeprefix("nats://") in text(browser, "facts")
    working = asyncio.create_task(router.request("work", {"sleep_ms": 5000}))
    for _ in range(5):
        await router.request("echo")
    await router.request("fail")
    await until(browser, lambda b: "work" in text(b, "tasks-rows"))
    await until(browser, lambda b: "handler error" in text(b, "attempts-rows"))
    await router.request("kill")
    await until(browser, lambda b: "worker died" in text(b, "attempts-rows"))
    await until(browser, lambda b: "died" in text(b, "events"))
    await working
    await until(browser, lambda b: text(b, "tasks-rows").strip() == "none")
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


async def test_the_filter_narrows_the_attempts_by_keyboard_alone(
    host: Host, listen: str, browser: webdriver.Chrome, router: Router
) -> None:
    await open_page(browser, listen)
    await router.request("fail")
    await router.request("kill")
    await until(browser, lambda b: "worker died" in text(b, "attempts-rows"))
    body = browser.find_element(By.TAG_NAME, "body")
    for _ in range(60):  # the skip link, the tables and their titles, the filter
        body.send_keys(Keys.TAB)
        if browser.switch_to.active_element.get_attribute("id") == "filter":
            break
        body = browser.switch_to.active_element
    assert browser.switch_to.active_element.get_attribute("id") == "filter"
    browser.switch_to.active_element.send_keys("worker died")
    assert "handler error" not in text(browser, "attempts-rows")
    assert "worker died" in text(browser, "attempts-rows")


async def test_tables_are_sorted_by_the_titles_of_their_columns_by_keyboard(
    host: Host, listen: str, browser: webdriver.Chrome, router: Router
) -> None:
    for _ in range(3):
        await router.request("fail")
    await router.request("echo")
    await open_page(browser, listen)
    await until(browser, lambda b: "fail" in text(b, "routes-rows"))
    titles = browser.find_elements(By.CSS_SELECTOR, "#routes thead th")
    (failed,) = [title for title in titles if title.text == "Failed"]

    def first() -> str:
        return browser.find_element(By.CSS_SELECTOR, "#routes-rows th").text

    assert first() == "(catch-all)"
    failed.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert (failed.get_attribute("aria-sort"), first()) == ("descending", "fail")
    failed.find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert failed.get_attribute("aria-sort") == "ascending"
    assert first() != "fail"
    (by,) = browser.find_elements(By.XPATH, "//*[@id='workers-rows']/ancestor::table//th[@aria-sort]")
    assert by.text == "State", "of many, those that do not serve come first"


async def test_a_worker_that_serves_shows_its_server(
    host: Host, nats_server: NatsServer, listen: str, browser: webdriver.Chrome
) -> None:
    await open_page(browser, listen)
    where = nats_server.url.removeprefix("nats://")
    await until(browser, lambda b: f"{where} for" in text(b, "workers-rows"))


async def test_a_drained_host_and_one_without_its_server_say_so_and_come_back(
    host: Host, nats_server: NatsServer, listen: str, browser: webdriver.Chrome
) -> None:
    await open_page(browser, listen)
    assert (await host.command("drain", "--wait", "--timeout", "20")).status == 0
    await until(browser, lambda b: text(b, "state") == "drained: 0 of 2 workers serve")
    await until(browser, lambda b: f" ago by user {os.getuid()} (pid " in text(b, "facts"))
    assert (await host.command("resume")).status == 0
    await until(browser, lambda b: text(b, "state") == "ready: 2 of 2 workers serve")
    await nats_server.kill()
    await until(browser, lambda b: "0 of 2 workers serve" in text(b, "state"))
    await until(browser, lambda b: text(b, "workers-rows").count("connection refused") == 2)
    assert "disconnected" in text(browser, "workers-rows")
    await nats_server.start()
    await until(browser, lambda b: text(b, "state") == "ready: 2 of 2 workers serve")


async def test_a_screen_reader_hears_state_tables_and_their_order(
    host: Host, listen: str, browser: webdriver.Chrome, router: Router
) -> None:
    """By the accessibility tree that Chromium gives to screen readers."""
    await router.request("fail")
    await open_page(browser, listen)
    await until(browser, lambda b: "handler error" in text(b, "attempts-rows"))
    browser.execute_cdp_cmd("Accessibility.enable", {})
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree["nodes"]
        if not node["ignored"] and "role" in node
    ]
    named = {name for role, name in nodes if role == "region"}
    titles = ("Routes", "Running tasks", "Workers", "Attempts that did not complete", "Reloads and deaths")
    assert all(any(name.startswith(title) for name in named) for title in titles), named
    assert ("searchbox", "Filter") in nodes
    assert {"status", "main", "banner", "table", "columnheader", "rowheader"} <= {role for role, _ in nodes}
    charts = [name for role, name in nodes if role in ("image", "img")]
    assert any(re.match(r"fail: .* answers a second now, at most ", name) for name in charts), charts
    without = [role for role, name in nodes if role in ("button", "link", "searchbox", "region", "img") and not name]
    assert without == []


async def found_again(browser: webdriver.Chrome) -> None:
    """The page shows the whole host, and says no more that what it shows is old."""
    await until(browser, lambda b: text(b, "state") == "ready: 2 of 2 workers serve")
    assert not browser.find_element(By.ID, "lost").is_displayed()


async def test_a_host_that_is_gone_is_told_and_found_again(host: Host, listen: str, browser: webdriver.Chrome) -> None:
    await open_page(browser, listen)
    host.send_signal(signal.SIGKILL)
    await host.wait()
    await until(browser, lambda b: text(b, "state") == "not reachable")
    assert browser.find_element(By.ID, "lost").is_displayed()
    await host.restart()
    await found_again(browser)


async def test_a_host_that_hangs_is_told_though_its_connection_stays_open(
    host: Host, listen: str, browser: webdriver.Chrome
) -> None:
    await open_page(browser, listen)
    host.send_signal(signal.SIGSTOP)
    try:
        await until(browser, lambda b: text(b, "state") == "silent")
        assert "The host has said nothing for " in browser.find_element(By.ID, "lost").text
    finally:
        host.send_signal(signal.SIGCONT)
    await found_again(browser)


async def test_who_is_one_too_many_sees_the_host_when_another_has_gone(
    host: Host, listen: str, browser: webdriver.Chrome
) -> None:
    await open_page(browser, listen)
    await asyncio.to_thread(browser.get, "about:blank")
    address, port = listen.split(":")
    others = []
    for _ in range(16):
        reader, writer = await asyncio.open_connection(address, int(port))
        writer.write(f"GET /events HTTP/1.1\r\nHost: {listen}\r\n\r\n".encode())
        assert b" 200 " in await reader.readline()
        others.append(writer)
    await asyncio.to_thread(browser.get, f"http://{listen}/")
    await until(browser, lambda b: text(b, "state") == "not reachable")
    for writer in others:
        writer.close()
    await until(browser, lambda b: text(b, "state") == "ready: 2 of 2 workers serve")


async def test_everything_has_a_name_for_a_screen_reader(host: Host, listen: str, browser: webdriver.Chrome) -> None:
    await open_page(browser, listen)
    unnamed = browser.execute_script("""
        return [...document.querySelectorAll('[role=region], section, input, svg[role=img]')].filter(e => !(
            e.getAttribute('aria-label') || (e.getAttribute('aria-labelledby') &&
            document.getElementById(e.getAttribute('aria-labelledby'))) || (e.labels && e.labels.length)
        )).map(e => e.outerHTML.slice(0, 80))""")
    assert unnamed == []
    assert browser.find_element(By.ID, "state").get_attribute("aria-live") == "polite"
    assert all(th.get_attribute("scope") for th in browser.find_elements(By.TAG_NAME, "th"))


async def test_on_a_phone_only_tables_scroll_sideways_and_an_attempt_is_read_without(
    host: Host, listen: str, browser: webdriver.Chrome, router: Router
) -> None:
    await router.request("fail")
    await router.request("work", {"kind": "error", "text": "x" * 600})
    await asyncio.to_thread(browser.set_window_size, 500, 900)
    try:
        await open_page(browser, listen)
        await until(browser, lambda b: "handler error" in text(b, "attempts-rows"))
        script = "return [document.documentElement.scrollWidth, innerWidth]"
        width, window = browser.execute_script(script)
        assert width <= window
        script = "const box = document.querySelector('.attempts').parentElement;"
        width, window = browser.execute_script(f"{script} return [box.scrollWidth, box.clientWidth]")
        assert width <= window
        browser.execute_cdp_cmd("Accessibility.enable", {})
        nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = Counter(node["role"]["value"] for node in nodes if not node["ignored"] and "role" in node)
        # all is there for a screen reader, but the charts: 11 columns of routes, 6, 9 and 6
        assert (roles["table"], roles["columnheader"]) == (4, 32), roles
        assert roles["row"] >= 4 + 2 + len(ROUTES), roles
    finally:
        await asyncio.to_thread(browser.set_window_size, 1400, 1000)
