"""MiniWoB++ as an environment: numbered screenshots out, actions in, and the page's own rewards.

    with open_episodes(scale=3) as start:                    # one browser for many episodes
        episode = start("login-user", seed=7)
        seen = episode.observe()                       # image, question, numbered elements
        outcome = episode.act("type [1] [keli] [0]")   # reward None while it goes on
        outcome = episode.act("click [3]")
        outcome.reward                                 # 1.0: the page says that it was done right

An action is a text in the grammar of `curation.grading.actions`: `click [id]`, `hover [id]`, `type
[id] [text]` with Enter behind it unless `[0]` follows, `press [key]`, `scroll [direction]`,
`go_back`, and `stop [answer]`, which ends the episode. What can't be done (no such number, no
action) is a result that says so, and costs a step; nothing a model writes raises. The reward is
the page's raw one, from -1 to 1, without its penalty for time.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from curation.grading.actions import parse_action
from curation.render.text_layout import font
from vigorl_nano.browser import chrome
from vigorl_nano.browser.screens import Element, elements

WIDTH, HEIGHT = 160, 210  # CSS pixels of every MiniWoB++ page
MOST_STEPS = 12
_COLOURS = ("#c2185b", "#1259c3", "#2e7d32", "#b45309", "#6a1b9a", "#00695c")
_READY_S = 10.0
_SETTLED_S = 0.15
_TEXT = re.compile(
    r"^\W*type\s*\[[^\[\]]*\]\s*\[(.*?)\](?:\s*\[\s*[01]\s*\])?\W*$", re.DOTALL | re.I
)
_KEYS = {"enter": "ENTER", "tab": "TAB", "escape": "ESCAPE", "backspace": "BACKSPACE"}
_START = """
Math.seedrandom(arguments[0]);
core.EPISODE_MAX_TIME = 2e9;
core.startEpisodeReal();
core.hideDisplay();
for (const library of [window.$, window.jQuery]) if (library && library.fx) library.fx.off = true;
"""
_STATE = "return [WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL, core.getUtterance(), WOB_TASK_READY]"


@dataclass(frozen=True, slots=True)
class Observation:
    """The page before an action."""

    image: bytes
    """PNG of the page; each element has a frame with its number."""
    question: str
    """The objective and the actions so far, as ICAL and VisualWebArena put them."""
    elements: tuple[Element, ...]
    """What the numbers stand for, from 1; boxes in pixels of the image."""


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The result of an action."""

    reward: float | None
    """The page's reward, -1 to 1; None while the episode goes on."""
    problem: str = ""
    """Why nothing was done; empty when something was."""

    @property
    def done(self) -> bool:
        return self.reward is not None


@dataclass(slots=True)
class Episode:
    """One instance of a task, being played."""

    driver: Any
    task: str
    seed: int
    scale: float
    objective: str = ""
    actions: list[str] = field(default_factory=list)
    steps: int = 0
    """Actions, and texts that were none."""
    answer: str | None = None
    """The answer given with `stop`."""
    _elements: tuple[Element, ...] = ()

    def observe(self) -> Observation:
        """Observe the page as it is now."""
        found = self._stable_elements()
        self._elements = tuple(found)
        image = draw_numbers(self.driver.get_screenshot_as_png(), found, self.scale)
        previous = "; ".join(self.actions) or "None"
        question = f"OBJECTIVE: {self.objective}\nPREVIOUS ACTIONS: {previous}"
        return Observation(image, question, self._elements)

    def _stable_elements(self) -> list[Element]:
        """Wait until no element moves any more, for some seconds at most."""
        end = time.monotonic() + _READY_S / 4
        before: list[Element] = []
        while True:
            found = [one for one in elements(self.driver, self.scale) if one.whole]
            if found == before or time.monotonic() > end:
                return found
            before = found
            time.sleep(_SETTLED_S)

    def act(self, text: str) -> ActionResult:
        """Do the action in `text`, and read what the page makes of it."""
        self.steps += 1
        action = parse_action(text)
        if action is None:
            return self._result(f"{text[:60]!r} is no action")
        self.actions.append(" ".join(text.split()))
        if action.name == "stop":
            self.answer = action.arguments[0] if action.arguments else ""
            return ActionResult(self._state()[1])
        problem = self._do(action.name, action.arguments, text)
        time.sleep(_SETTLED_S)
        return self._result(problem)

    def _result(self, problem: str) -> ActionResult:
        done, reward = self._state()
        if not done and self.steps >= MOST_STEPS:
            return ActionResult(0.0, f"there were {MOST_STEPS} actions")
        return ActionResult(reward if done else None, problem)

    def _state(self) -> tuple[bool, float]:
        done, reward, *_ = self.driver.execute_script(_STATE)
        return bool(done), float(reward) if done else 0.0

    def _do(self, name: str, arguments: Sequence[str], text: str) -> str:
        """Do it in the browser; return why it can't be done, or an empty text."""
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        hand = ActionChains(self.driver, duration=20)
        try:
            if name in ("click", "hover", "type"):
                node = self._node(arguments[0])
                if node is None:
                    return f"there is no element [{arguments[0]}]"
                if name == "type":
                    typed = _TEXT.match(text)
                    hand.click(node).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL)
                    hand.send_keys(Keys.DELETE, typed[1] if typed else arguments[1])
                    hand.send_keys(*[Keys.ENTER] * (arguments[2] == "1")).perform()
                elif node.tag_name == "option":
                    node.click()
                else:
                    (hand.click(node) if name == "click" else hand.move_to_element(node)).perform()
            elif name == "press" and arguments[0] in _KEYS:
                hand.send_keys(getattr(Keys, _KEYS[arguments[0]])).perform()
            elif name == "scroll":
                down = {"down": 0.7, "up": -0.7}.get(arguments[0], 0.0)
                hand.scroll_by_amount(0, round(down * HEIGHT)).perform()
            elif name == "go_back":
                self.driver.back()
            else:
                return f"{name} can't be done here"
        except WebDriverException as error:
            return f"{name} failed: {(error.msg or '').splitlines()[0] if error.msg else name}"
        return ""

    def _node(self, number: str) -> Any:
        if not number.isdecimal() or not 0 < int(number) <= len(self._elements):
            return None
        found = self.driver.find_elements("css selector", f'[data-vigorl="{int(number)}"]')
        return found[0] if found else None


@contextmanager
def open_episodes(scale: float = 3.0) -> Iterator[Callable[[str, int], Episode]]:
    """Open a browser with MiniWoB++'s pages; what is yielded starts an episode of a task.

    Raises:
        BrowserMissing: the browser or the package `miniwob` is not there.
    """
    pages = _pages()
    with chrome.serve_folder(pages) as url, chrome.open_browser(WIDTH, HEIGHT, scale) as driver:

        def start(task: str, seed: int) -> Episode:
            if task not in tasks():
                raise ValueError(f"MiniWoB++ has no task {task!r}")
            driver.get(f"{url}/miniwob/{task}.html")
            driver.execute_script(_START, str(seed))
            end = time.monotonic() + _READY_S
            while not driver.execute_script(_STATE)[3] and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(_SETTLED_S)
            objective = driver.execute_script(_STATE)[2]
            return Episode(driver, task, seed, scale, objective)

        yield start


def tasks() -> list[str]:
    """List the names of MiniWoB++'s tasks."""
    return sorted(path.stem for path in (_pages() / "miniwob").glob("*.html"))


def _pages() -> Path:
    spec = find_spec("miniwob")
    if spec is None or spec.origin is None:
        raise chrome.BrowserMissing(
            "MiniWoB++ is not installed: pip install 'vigorl[web]' (or -e '.[web]' here)"
        )
    return Path(spec.origin).parent / "html"


def draw_numbers(png: bytes, found: Sequence[Element], scale: float = 1.0) -> bytes:
    """Draw a frame and a number for each element into a screenshot, as PNG."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    pen, face = ImageDraw.Draw(image), font(max(11, 5.5 * scale))
    line = max(1, round(0.6 * scale))
    for number, one in enumerate(found, start=1):
        colour = _COLOURS[number % len(_COLOURS)]
        x1, y1, x2, y2 = one.box
        pen.rectangle((x1 - line, y1 - line, x2 + line, y2 + line), outline=colour, width=line)
    for number, one in enumerate(found, start=1):  # over the frames, so that each can be read
        colour = _COLOURS[number % len(_COLOURS)]
        left, top, right, bottom = pen.textbbox((0, 0), str(number), face)
        width, height = right - left + 2 * line + 2, bottom - top + 2 * line + 2
        x = min(max(one.box[2] - width / 2, 0), image.width - width)
        y = max(one.box[1] - height / 2 - line, 0)
        pen.rectangle((x, y, x + width, y + height), fill=colour)
        pen.text((x + width / 2, y + height / 2), str(number), "white", face, anchor="mm")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
