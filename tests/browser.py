"""A real Chromium for tests: pages opened, asked and photographed over the DevTools protocol.

It speaks through two pipes (`--remote-debugging-pipe`), so it needs no library and opens no port.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import pytest

from tests.waiting import PATIENCE_S

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

needs_browser = pytest.mark.skipif(
    CHROMIUM is None,
    reason="NOT tried in a browser: no Chromium is installed (Debian: apt-get install chromium)",
)

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio",
    "--remote-debugging-pipe",
)  # fmt: skip


class BrowserError(Exception):
    """The browser refused a command, ended, or did not answer in time."""


class Browser:
    def __init__(self, to_it: BinaryIO, from_it: int) -> None:
        self._to_it = to_it
        self._from_it = from_it
        self._n_sent = 0
        self._unread = b""
        self._contexts: list[str] = []
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        self._n_sent += 1
        message: dict[str, Any] = {"id": self._n_sent, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self._to_it.write(json.dumps(message).encode() + b"\0")  # whole, even if a signal comes
        self._to_it.flush()
        until = time.monotonic() + PATIENCE_S
        while True:
            told = self._next(until)
            if told.get("id") != self._n_sent:
                self.events.append(told)
                continue
            if "error" in told:
                raise BrowserError(f"{method}: {told['error']['message']}")
            result: dict[str, Any] = told["result"]
            return result

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from_it], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._from_it, 1 << 20) if ready else b""
            if not part:
                raise BrowserError("the browser ended" if ready else "the browser does not answer")
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told

    def page(self, url: str, *, width: int = 1200, height: int = 900) -> Page:
        context = self.send("Target.createBrowserContext")["browserContextId"]
        self._contexts.append(context)
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        page.resize(width, height)
        page.open(url)
        return page

    def close_pages(self) -> None:
        """Close every page, with its cookies and storage."""
        while self._contexts:
            self.send("Target.disposeBrowserContext", browserContextId=self._contexts.pop())
        self.events.clear()


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.send(method, self._session, **params)

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, expression: str) -> Any:
        """Evaluate JavaScript in the page; a promise is waited for."""
        told = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in told:
            raise BrowserError(json.dumps(told["exceptionDetails"])[:500])
        return told["result"].get("value")

    def wait(self, expression: str, patience_s: float = PATIENCE_S) -> Any:
        """Wait until an expression is true; gives its value."""
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            try:
                value = self.ask(expression)
            except BrowserError as error:  # the page that was asked gave way to the next
                if "navigated" not in str(error):
                    raise
                value = None
            if value:
                return value
            time.sleep(0.05)
        reads = str(self.ask("document.activeElement?.id + ': ' + document.body.innerText"))
        raise BrowserError(f"not within {patience_s:g} s: {expression}; it reads {reads[:900]!r}")

    def text(self, selector: str) -> str:
        return str(self.ask(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str, *, text: str = "") -> None:
        more: Mapping[str, Any] = {"text": text} if text else {}
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}.get(key, 0)
        told = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", **told, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", **told)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=False,
        )  # fmt: skip

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def photograph(self, *, whole: bool = False) -> bytes:
        told = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(told["data"])

    def complaints(self) -> list[str]:
        """Return the errors of the console: exceptions, refused resources, breaches of the CSP."""
        said = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            if event["method"] == "Runtime.exceptionThrown":
                said.append(json.dumps(event["params"]["exceptionDetails"])[:400])
            elif event["method"] == "Log.entryAdded":
                entry = event["params"]["entry"]
                if entry["level"] in ("error", "warning"):
                    said.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
        return said

    def asked_for(self) -> set[str]:
        """Return every address that the page loaded something from."""
        return {
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event["method"] == "Network.requestWillBeSent"
            and event.get("sessionId") == self._session
        }


@contextmanager
def browser(*flags: str) -> Iterator[Browser]:
    assert CHROMIUM is not None
    its_in, to_it = _pipe()
    from_it, its_out = _pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}", *flags, "--no-startup-window"]
        # Its pipes are descriptors 3 and 4, whatever ours are.
        wires = [(os.POSIX_SPAWN_DUP2, its_in, 3), (os.POSIX_SPAWN_DUP2, its_out, 4)]
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (1, 2)]
        for fd in (its_in, its_out):
            os.set_inheritable(fd, True)
        pid = os.posix_spawn(
            CHROMIUM, command, {**os.environ, "HOME": folder}, file_actions=wires + quiet
        )
        os.close(its_in)
        os.close(its_out)
        try:
            with os.fdopen(to_it, "wb") as commands:
                yield Browser(commands, from_it)
        finally:  # it ends when no one speaks to it any more
            _wait(pid)
            os.close(from_it)


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    above = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 5) for fd in ends)
    for fd in ends:
        os.close(fd)
    return above[0], above[1]


def _wait(pid: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.05)
    subprocess.run(["kill", "-9", str(pid)], check=False)
    os.waitpid(pid, 0)
