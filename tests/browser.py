"""Chromium without a window, by the WebDriver protocol of its own chromedriver."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 120
"""Seconds to wait for what should happen within a few."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(found: Callable[[], Any], what: str) -> Any:
    """The first true value of ``found``, which may raise OSError before."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if value := found():
                return value
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not within {PATIENCE} s: {what}")


class Browser:
    """One session of chromedriver at ``address``."""

    def __init__(self, address: str, *flags: str) -> None:
        self.address = address
        options = {"binary": CHROMIUM, "args": [*FLAGS, *flags]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.path = ""
        session = self.call("POST", "/session", capabilities={"alwaysMatch": wanted})
        self.path = f"/session/{session['sessionId']}"

    def call(self, method: str, command: str, **content: Any) -> Any:
        body = None if method != "POST" else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.address}{self.path}{command}", body, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self.call("POST", "/url", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self.call("POST", "/execute/sync", script=f"return {script}", args=[])

    def upload(self, selector: str, path: Any) -> None:
        found = self.call("POST", "/element", using="css selector", value=selector)
        (element,) = found.values()
        self.call("POST", f"/element/{element}/value", text=str(path))

    def errors(self) -> list[str]:
        """Errors in the console since the last call."""
        entries = self.call("POST", "/se/log", type="browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@contextmanager
def browser(*flags: str) -> Iterator[Browser]:
    port = free_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL)
        try:
            address = f"http://127.0.0.1:{port}"
            until(lambda: urllib.request.urlopen(f"{address}/status"), "chromedriver")
            opened = Browser(address, f"--user-data-dir={profile}", "--window-size=1100,900", *flags)
            try:
                yield opened
            finally:
                opened.call("DELETE", "")
        finally:
            driver.terminate()
            driver.wait()
