"""Starts a headless Chromium, or says what must be installed first.

with open_browser(1280, 800) as driver:
    driver.get(pages_url + "/index.html")
with serve_folder(folder) as url:
    ...                                    # a folder's files at an address of this machine only

Pages get no network but this machine, animations are off, and every page is as large as asked, in
its own pixels times `scale`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class BrowserMissing(Exception):
    """Pages can't be shown; the message says in one sentence what must be installed."""


_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--force-prefers-reduced-motion",
    # No name is resolved, so a page can reach only this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)


def find_browser() -> str:
    """Return the browser's path.

    Raises:
        BrowserMissing: the browser, its driver or the Python package is not there.
    """
    try:
        import selenium  # noqa: F401
    except ImportError:
        raise BrowserMissing(
            "selenium is not installed: pip install 'vigorl[web]' (or -e '.[web]' here)"
        ) from None
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is None or shutil.which("chromedriver") is None:
        raise BrowserMissing(
            "there is no Chromium with its driver: apt-get install chromium chromium-driver"
        )
    return browser


@contextmanager
def open_browser(width: int, height: int, scale: float = 1.0) -> Iterator[Any]:
    """Open a selenium driver: pages of `width` x `height` CSS pixels, each `scale` pixels large.

    Raises:
        BrowserMissing: see `find_browser`.
    """
    browser = find_browser()
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    with tempfile.TemporaryDirectory(prefix="vigorl-chromium-") as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        if os.geteuid() == 0:  # its sandbox refuses to run as root
            options.add_argument("--no-sandbox")
        service = Service(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            shape = {"width": width, "height": height, "deviceScaleFactor": scale}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**shape, "mobile": False})
            driver.set_page_load_timeout(60)
            driver.set_script_timeout(30)
            yield driver
        finally:
            driver.quit()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve a folder's files at an address that only this machine can reach."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
