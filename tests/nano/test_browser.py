"""Pages in a real Chromium: boxes are where things are drawn, and episodes pay what the page says.

Skipped where the browser, its driver or the extra `web` is not installed.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from vigorl_nano.browser import chrome, episodes, screens, steps

try:
    chrome.find_browser()
    episodes.tasks()
    MISSING = ""
except chrome.BrowserMissing as missing:
    MISSING = str(missing)
browser = pytest.mark.skipif(bool(MISSING), reason=MISSING or "there")

PAGE = """<!doctype html><style>body {margin: 0; font: 16px sans-serif; height: 2000px}
  button, a, span {position: absolute; padding: 0; border: 0}</style>
<button style="left:20px; top:30px; width:80px; height:40px; background:#f00"
        aria-label="Alarm"></button>
<button style="left:150px; top:30px; width:90px; height:40px">Save it 3</button>
<a href="#x" style="left:20px; top:100px; width:60px; height:20px">Twice</a>
<a href="#y" style="left:120px; top:100px; width:60px; height:20px">Twice</a>
<button style="left:20px; top:140px; width:80px; height:30px">Covered</button>
<span style="left:10px; top:135px; width:200px; height:40px; background:#eee"></span>
<button style="left:250px; top:140px; width:90px; height:30px">Cut off</button>
<button style="left:20px; top:180px; width:80px; height:15px; visibility:hidden">Hidden</button>
<button style="left:20px; top:900px; width:80px; height:30px">Below</button>"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("pages")
    (folder / "page.html").write_text(PAGE)
    with chrome.serve_folder(folder) as url, chrome.open_browser(300, 200, 2.0) as driver:
        driver.get(f"{url}/page.html")
        yield driver


@pytest.fixture(scope="module")
def start():  # type: ignore[no-untyped-def]
    with episodes.open_episodes() as begin:
        yield begin


@browser
def test_boxes_are_where_the_page_draws(shown) -> None:  # type: ignore[no-untyped-def]
    found = {one.name: one for one in screens.elements(shown, 2.0) if one.whole}
    assert set(found) == {"Alarm", "Save it 3", "Twice"}
    image = Image.open(io.BytesIO(shown.get_screenshot_as_png())).convert("RGB")
    assert image.size == (600, 400)
    red = [(x, y) for x in range(600) for y in range(400) if image.getpixel((x, y)) == (255, 0, 0)]
    alarm = found["Alarm"]
    assert alarm.box == (min(red)[0], min(red)[1], max(red)[0] + 1, max(red)[1] + 1)
    assert (alarm.family, alarm.role) == ("icon", "button")
    assert found["Save it 3"].family == "text"


@browser
def test_only_what_can_be_told_apart_is_asked_about(shown) -> None:  # type: ignore[no-untyped-def]
    found = screens.elements(shown, 2.0)
    assert [one.name for one in found if not one.whole] == ["Covered", "Cut off"]
    before: set[str] = set()
    requests = [screens.instruction(one) for one in screens.choose_elements(found, before)]
    assert requests == ['Press "Save it 3"', "Alarm"]
    assert screens.choose_elements(found, before) == []


@browser
def test_a_page_reaches_no_other_machine(shown) -> None:  # type: ignore[no-untyped-def]
    error = shown.execute_async_script(
        "const done = arguments[0]; fetch('http://example.org/').then(() => done('reached'),"
        " error => done(String(error)))"
    )
    assert "Failed to fetch" in error


@browser
@pytest.mark.parametrize("task", ["login-user", "click-checkboxes", "click-link"])
def test_an_episode_played_rightly_earns_the_pages_reward(start, task: str) -> None:  # type: ignore[no-untyped-def]
    played = steps.play(start(task, 3))
    assert played
    seen, action = played[-1]
    assert Image.open(io.BytesIO(seen.image)).size == (480, 630)
    assert seen.question.startswith("OBJECTIVE: ") and "\nPREVIOUS ACTIONS: " in seen.question
    assert action.startswith("click [")


@browser
def test_a_wrong_action_earns_the_pages_penalty(start) -> None:  # type: ignore[no-untyped-def]
    episode = start("click-test-2", 5)
    seen = episode.observe()
    wrong = steps.number_of("TWO", seen.elements)
    outcome = episode.act(f"click [{wrong}]")
    assert (outcome.done, outcome.reward) == (True, -1.0)


@browser
def test_the_same_seed_is_the_same_problem(start) -> None:  # type: ignore[no-untyped-def]
    looks = [start("click-option", seed).observe() for seed in (11, 11, 12)]
    assert looks[0] == looks[1]
    assert looks[0].question != looks[2].question


@browser
def test_what_cannot_be_done_is_said_and_costs_a_step(start) -> None:  # type: ignore[no-untyped-def]
    episode = start("enter-text", 1)
    episode.observe()
    for text, problem in [
        ("click [99]", "there is no element [99]"),
        ("click [x]", "there is no element [x]"),
        ("goto [http://example.org]", "goto can't be done here"),
        ("I would click the button", "'I would click the button' is no action"),
    ]:
        outcome = episode.act(text)
        assert (outcome.reward, outcome.problem) == (None, problem)
    assert episode.act("type [1] [Mixed Case] [0]").problem == ""
    typed = episode.driver.execute_script("return document.querySelector('#tt').value")
    assert typed == "Mixed Case", "what is typed is typed as it is written"
    assert episode.act("type [1] [other]").problem == ""
    assert episode.driver.execute_script("return document.querySelector('#tt').value") == "other"
    assert episode.act("scroll [down]").problem == ""
    outcome = episode.act("stop [done now]")
    assert (outcome.reward, episode.answer) == (0.0, "done now")
    with pytest.raises(ValueError, match="no task 'no-such'"):
        start("no-such", 1)


@browser
def test_an_episode_without_end_is_ended(start) -> None:  # type: ignore[no-untyped-def]
    episode = start("enter-text", 1)
    episode.observe()
    texts = ["scroll [up]", "I should click the button"]  # which is no action, and costs a step
    outcomes = [episode.act(texts[i % 2]) for i in range(episodes.MOST_STEPS)]
    assert [outcome.reward for outcome in outcomes] == [None] * (len(outcomes) - 1) + [0.0]


def test_without_a_browser_it_is_said_what_to_install(tmp_path: Path) -> None:
    """The commands that need one end with one sentence, and write nothing."""
    (tmp_path / "dist" / "production").mkdir(parents=True)
    (tmp_path / "dist" / "production" / "inbox.html").touch()
    env = {**os.environ, "PATH": str(Path(sys.executable).parent)}
    for command in (
        ["vigorl_nano.browser.screens", "--pages", str(tmp_path / "dist")],
        ["vigorl_nano.browser.steps"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command, "--out", str(tmp_path / "out")],
            env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "install" in done.stderr and done.stderr.count("\n") == 1
        assert not list((tmp_path / "out").iterdir())


def test_a_named_element_is_found_by_its_number() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    made = [
        screens.Element("Name", "field", "text", box),
        screens.Element("Submit now", "button", "text", box),
        screens.Element("Submit", "button", "text", box),
        screens.Element("", "field", "text", box),
    ]
    assert [steps.number_of(n, made) for n in ("submit", "Subm", "#2", "#3", "Cancel")] == [
        3, 2, 4, None, None,
    ]  # fmt: skip


def test_numbers_stay_in_the_image_and_do_not_cover_each_other() -> None:
    blank = Image.new("RGB", (120, 80), "white")
    out = io.BytesIO()
    blank.save(out, "PNG")
    found = [
        screens.Element("a", "button", "text", (0, 0, 40, 20)),
        screens.Element("b", "button", "text", (80, 60, 120, 80)),
    ]
    drawn = Image.open(io.BytesIO(episodes.draw_numbers(out.getvalue(), found, 1.0)))
    assert drawn.size == blank.size
    white = {colour: n for n, colour in drawn.getcolors(9999)}[(255, 255, 255)]
    assert 100 < 120 * 80 - white < 2000
