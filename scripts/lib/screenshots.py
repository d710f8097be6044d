"""Pictures of the page, from the product's own HTTP server and files in a headless Chromium, and of `ajhost top`.

The host that they show exists on paper (tests/support/large_status.py), so a picture changes when the product does.
"""

from __future__ import annotations

import asyncio
import base64
import html
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from ajhost.adapters.http import Endpoint, Endpoints, HttpServer, Page, PageAccess, Stream
from ajhost.cli.top_screen import Line, View
from ajhost.roles.supervisor.http_endpoints import page_files
from tests.support.large_status import attempts, large_report
from tests.support.nats import free_port

HERE = Path(__file__).parents[2] / "docs" / "screenshots"
_SECONDS = 120
"""As many samples as a chart of the page shows."""
_COLOURS = {
    "class:good": "#4fc97f", "class:bad": "#ff7b72", "class:warn": "#e3b341", "class:alarm": "#ff7b72",
    "class:keys": "#14171a", "class:focused": "#14171a",
}  # fmt: skip

_BOLD = ("class:title", "class:focused", "class:bad", "class:sorted")


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture of the page: the host's size, the window's size in pixels, light or dark."""

    name: str
    workers: int
    routes: int
    width: int
    height: int
    dark: bool = False
    whole: bool = False


CHECKED_IN = (
    Shot("page", 4, 8, 1280, 960),
    Shot("page-phone", 4, 8, 390, 844, dark=True),
)
TO_LOOK_AT = (
    Shot("light", 4, 8, 1280, 800, whole=True),
    Shot("dark", 4, 8, 1280, 800, dark=True, whole=True),
    Shot("phone", 4, 8, 390, 844, whole=True),
    Shot("phone-dark-large", 64, 200, 390, 844, dark=True, whole=True),
    Shot("large", 64, 200, 1400, 1000, whole=True),
)


def _told(workers: int, routes: int, second: int) -> bytes:
    at = time.time() - _SECONDS + second
    report = large_report(workers, routes, second)
    events = [
        {
            "at": at - 300,
            "kind": "death",
            "text": "worker 2 (pid 5002) was killed by SIGKILL; 1 task was answered",
        },
        {"at": at - 4000, "kind": "reloaded", "text": "generation 12 serves"},
        {
            "at": at - 4100,
            "kind": "rejected",
            "text": "shop.mail: ModuleNotFoundError: No module named 'jinja2'",
        },
        {"at": at - 456_000, "kind": "ready", "text": "4 of 4 workers serve"},
    ]
    names = [route.route for route in report.routes]
    told = {"at": at, "status": report.as_object(), "attempts": attempts(at, names), "events": events}
    return b"data: " + orjson.dumps(told) + b"\n\n"


async def _events(shot: Shot) -> AsyncGenerator[bytes]:
    for second in range(_SECONDS):
        yield _told(shot.workers, shot.routes, second)
    await asyncio.Event().wait()


def _endpoints(shot: Shot) -> Endpoints:
    def same(page: Page) -> Page:
        return page

    return {
        "/events": Endpoint(lambda: Stream(_events(shot), 1, ""), named=False),
        **{path: Endpoint(partial(same, page)) for path, page in page_files().items()},
    }


@contextmanager
def _browser() -> Any:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        sys.exit("screenshots need Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()


def _ask(browser: webdriver.Chrome, command: str, **arguments: object) -> dict[str, Any]:
    answer: dict[str, Any] = browser.execute_cdp_cmd(command, arguments)
    return answer


def _capture(browser: webdriver.Chrome, shot: Shot, url: str, file: Path) -> None:
    """Waits until the page has drawn the last second, and writes the picture in the format of the file's name."""
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if shot.dark else "light"}]
    _ask(browser, "Emulation.setEmulatedMedia", features=scheme)
    size = {"width": shot.width, "height": shot.height, "deviceScaleFactor": 1, "mobile": False}
    _ask(browser, "Emulation.setDeviceMetricsOverride", **size)
    browser.get(url)
    deadline = time.monotonic() + 30
    while browser.execute_script("return latest ? latest.status.supervisor.uptime_s : 0") < 456_789 + _SECONDS - 1:
        if time.monotonic() > deadline:
            sys.exit(f"{shot.name}: the page draws nothing: {browser.get_log('browser')}")  # type: ignore[no-untyped-call]
        time.sleep(0.1)
    how: dict[str, object] = {"format": "webp", "quality": 70} if file.suffix == ".webp" else {"format": "png"}
    answer = _ask(browser, "Page.captureScreenshot", captureBeyondViewport=shot.whole, **how)
    file.write_bytes(base64.b64decode(answer["data"]))


async def _page(browser: webdriver.Chrome, shot: Shot, file: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    server = await HttpServer.start(listen, _endpoints(shot), PageAccess())
    try:
        await asyncio.to_thread(_capture, browser, shot, f"http://{listen}/", file)
        await asyncio.to_thread(browser.get, "about:blank")  # it leaves the stream of events
    finally:
        server.close()


def _top(workers: int, routes: int, width: int, height: int, *, focus: int = 1) -> str:
    """`ajhost top` as SVG: the very lines and styles that a terminal gets."""
    view = View(large_report(workers, routes, _SECONDS), focus=focus)
    return _svg(view.lines(width, height), width)


def _svg(lines: list[Line], width: int) -> str:
    cell, row = 8.0, 17
    texts = []
    for y, line in enumerate(lines):
        x = 0
        for style, text in line:
            if style in ("class:keys", "class:focused", "class:alarm"):
                texts.append(f'<rect x="{x * cell:g}" y="{y * row}" width="{len(text) * cell:g}" height="{row}"/>')
            # blanks around a text would be lost
            start, shown = x + len(text) - len(text.lstrip()), text.strip()
            looks = f' fill="{_COLOURS[style]}"' if style in _COLOURS else ""
            looks += ' font-weight="bold"' if style in _BOLD else ""
            looks += ' text-decoration="underline"' if style in ("class:column", "class:sorted") else ""
            place = f'x="{start * cell:g}" y="{y * row + 13}" textLength="{len(shown) * cell:g}"'
            if shown:
                texts.append(f'<text {place}{looks} xml:space="preserve">{html.escape(shown)}</text>')
            x += len(text)
    size = (width * cell + 16, len(lines) * row + 16)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -8 {size[0]:g} {size[1]:g}" width="{size[0]:g}">\n'
        f'<rect x="-8" y="-8" width="{size[0]:g}" height="{size[1]:g}" fill="#14171a" rx="6"/>\n'
        '<g font-family="ui-monospace, DejaVu Sans Mono, monospace" font-size="13" fill="#e6e8ea">\n'
        + "\n".join(text.replace("<rect", '<rect fill="#e6e8ea"') for text in texts)
        + "\n</g></svg>\n"
    )


async def main(folder: Path | None) -> None:
    """Draws what is checked in, or what is to be looked at into a folder."""
    with _browser() as browser:
        if folder is None:
            HERE.mkdir(exist_ok=True)
            for shot in CHECKED_IN:
                await _page(browser, shot, HERE / f"{shot.name}.webp")
            (HERE / "top.svg").write_text(_top(4, 8, 100, 30))
            return
        folder.mkdir(parents=True, exist_ok=True)
        for shot in (*CHECKED_IN, *TO_LOOK_AT):
            await _page(browser, shot, folder / f"{shot.name}.png")
        for name, screen in (
            ("top-80x24", _top(4, 8, 80, 24)), ("top-large-80x24", _top(64, 200, 80, 24)),
            ("top-100x30", _top(4, 8, 100, 30)), ("top-large-200x60", _top(64, 200, 200, 60)),
            ("top-40x20", _top(64, 200, 40, 20)),
        ):  # fmt: skip
            with tempfile.TemporaryDirectory() as there:
                picture = Path(there) / "top.svg"
                picture.write_text(screen)
                _ask(
                    browser,
                    "Emulation.setDeviceMetricsOverride",
                    width=1640,
                    height=1040,
                    deviceScaleFactor=1,
                    mobile=False,
                )
                browser.get(picture.as_uri())
                browser.save_screenshot(str(folder / f"{name}.png"))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
