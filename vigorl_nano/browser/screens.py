"""Makes the sample of the task `web-grounding`: screenshots of pages with their elements' boxes.

    npm pack gentelella@4.2.0 && tar xzf gentelella-4.2.0.tgz
    python -m vigorl_nano.browser.screens --pages package/dist --out warehouse/sources/sample

A question asks where an element is that the page names: by its own words (`text`), or an image
without words by the name that its page gives it for screen readers (`icon`). A name that two
elements of a screen share is left out, and none is used twice in all. The boxes come from the page
as it is laid out, so they are exact; an element counts when nothing lies in front of it. Beside
each question lie all elements of its screen with their names.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from vigorl_nano.browser import chrome
from vigorl_nano.sample_file import IMAGE, OBJECTS, describe, object_row, write_rows

DESKTOP, PHONE = (1280, 800, 1.0), (390, 780, 2.0)  # CSS pixels, and pixels of one
EACH = 5
"""Questions of each family about a screen, at most."""
_LONGEST = 48  # characters of a name
_SETTLED = 1.5  # seconds until a page has drawn itself
_CORNERS = ("x1", "y1", "x2", "y2")
_VERBS = {
    "link": "Go to",
    "button": "Press",
    "tab": "Open the tab",
    "field": "Type into",
    "textbox": "Type into",
    "combobox": "Choose from",
    "list": "Choose from",
    "checkbox": "Tick",
    "radio": "Choose",
    "switch": "Switch",
}

SCHEMA = pa.schema(
    [
        ("image", IMAGE),
        ("instruction", pa.string()),
        ("bbox", pa.list_(pa.float64())),
        ("data_type", pa.string()),
        ("objects", OBJECTS),
    ]
)


@dataclass(frozen=True, slots=True)
class Screen:
    """A page as it is shown."""

    page: str
    shape: tuple[int, int, float] = DESKTOP
    dark: bool = False


SCREENS = {
    "train": (
        Screen("inbox"), Screen("general_elements"), Screen("file_manager"), Screen("login"),
        Screen("kanban"), Screen("settings"), Screen("orders", dark=True), Screen("contacts"),
        Screen("inbox", PHONE), Screen("user_management", dark=True),
    ),
    "test": (
        Screen("form"), Screen("projects"), Screen("register"), Screen("widgets", PHONE),
    ),
}  # fmt: skip
"""The committed splits: pages of one kind are never in both."""


@dataclass(frozen=True, slots=True)
class Element:
    """Something on a page that can be used; its box in pixels of the screenshot."""

    name: str
    role: str
    family: str
    """`text` where its name can be read on the screen, `icon` where it is an image."""
    box: tuple[float, float, float, float]
    whole: bool = True
    """Whether it is wholly seen, and no part of another element."""
    written: str = ""
    """All text on it."""


def elements(driver: Any, scale: float = 1.0, within: str = "body") -> list[Element]:
    """List what can be used on the page as it is shown, in reading order.

    Each that is whole is marked in the page with the attribute `data-vigorl`, its place among these
    from 1.
    """
    script = resources.files("vigorl_nano.browser").joinpath("elements.js").read_text("utf-8")
    found = []
    for one in driver.execute_script(script, within):
        named = one["name"] or one["alt"] or one["written"]  # the last is shorter than a word
        family = "text" if one["name"] or not one["alt"] else "icon"
        box = tuple(round(one[corner] * scale, 2) for corner in _CORNERS)
        made = Element(named[:_LONGEST], one["role"], family, box, one["whole"], one["written"])
        found.append(made)
    return found


def choose_elements(found: Sequence[Element], before: set[str]) -> list[Element]:
    """Choose the elements to ask about: some of each family, spread over the screen.

    Args:
        before: names used before, on any screen; those chosen are added.
    """
    names = Counter(one.name.casefold() for one in found)
    chosen = []
    for family in ("text", "icon"):
        fit = [
            one
            for one in found
            if one.family == family
            and one.whole
            and one.name
            and one.name.casefold() not in before
            and names[one.name.casefold()] == 1
            and len(one.name) < _LONGEST
        ]
        step = max(1.0, len(fit) / EACH)
        chosen += [fit[int(i * step)] for i in range(min(EACH, len(fit)))]
    before |= {one.name.casefold() for one in chosen}
    return chosen


def instruction(element: Element) -> str:
    """Word the request: use what is named, or what the icon does."""
    if element.family == "icon":
        return element.name
    return f'{_VERBS.get(element.role, "Choose")} "{element.name}"'


def encode(png: bytes, lossless: bool = False) -> bytes:
    """Encode a screenshot as WebP; lossless is smaller where all is flat."""
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(
        out, "WEBP", quality=100 if lossless else 84, lossless=lossless, method=4
    )
    return out.getvalue()


def load_page(driver: Any, url: str, screen: Screen) -> None:
    """Load a page, in its dark colours if so, and wait until it has drawn itself."""
    width, height, scale = screen.shape
    shape = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if screen.dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    driver.get(f"{url}/production/{screen.page}.html")
    if screen.dark:
        driver.execute_script("document.documentElement.setAttribute('data-theme', 'dark')")
    time.sleep(_SETTLED)


def rows_of(
    driver: Any, url: str, screens: Sequence[Screen], before: set[str]
) -> Iterator[list[dict[str, Any]]]:
    """Make the rows about each screen."""
    for screen in screens:
        load_page(driver, url, screen)
        found = elements(driver, screen.shape[2])
        name = f"{screen.page}{'-phone' * (screen.shape == PHONE)}{'-dark' * screen.dark}"
        stored = {"bytes": encode(driver.get_screenshot_as_png()), "path": f"{name}.webp"}
        objects = [object_row(one.name, one.box) for one in found if one.name and one.whole]
        yield [
            {
                "image": stored,
                "instruction": instruction(one),
                "bbox": list(one.box),
                "data_type": one.family,
                "objects": objects,
            }
            for one in choose_elements(found, before)
        ]


def write(out: Path, pages: Path) -> list[Path]:
    """Write every split's file; each appears under its name only when it is whole."""
    paths: list[Path] = []
    before: set[str] = set()
    shape = SCREENS["train"][0].shape
    with chrome.serve_folder(pages) as url, chrome.open_browser(*shape) as driver:
        for split, screens in reversed(SCREENS.items()):  # the few held out choose first
            path = out / f"screens-{split}.parquet"
            paths.append(write_rows(path, SCHEMA, rows_of(driver, url, screens, before)))
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description="Screenshots of pages with questions.")
    parser.add_argument("--pages", type=Path, required=True, help="gentelella's unpacked dist")
    parser.add_argument("--out", type=Path, required=True, help="folder for the Parquet files")
    args = parser.parse_args()
    if not (args.pages / "production" / "inbox.html").is_file():
        parser.error(
            f"{args.pages} holds no production/inbox.html: unpack gentelella and name dist"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        paths = write(args.out, args.pages)
    except chrome.BrowserMissing as missing:
        sys.exit(str(missing))
    for path in paths:
        print(describe(path))


if __name__ == "__main__":
    main()
