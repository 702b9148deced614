"""Makes the sample of the task `web-action`: steps of MiniWoB++ episodes that its pages rewarded.

    python -m vigorl_nano.browser.steps --out warehouse/sources/sample

A script plays some tasks by their own words. Only an episode that ends with the page's full reward
is kept, each of its steps as a question: the numbered screenshot, the objective with the actions so
far, and the action that was taken. So every gold action was right in a real browser; others may be
right as well (checkboxes can be ticked in any order), and are then marked wrong offline.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from vigorl_nano.browser import chrome
from vigorl_nano.browser.episodes import Episode, Observation, open_episodes
from vigorl_nano.browser.screens import Element, encode
from vigorl_nano.sample_file import IMAGE, OBJECTS, describe, object_row, write_rows

SEEDS = {"train": range(100, 104), "test": range(900, 902)}
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")

SCHEMA = pa.schema(
    [
        ("image", IMAGE),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("action", pa.string()),
        ("episode", pa.string()),
        ("objects", OBJECTS),
    ]
)

Plan = list[tuple[str, str]]
"""Actions in turn: an element's name, and what is typed into it, empty for a click. A name such as
`#2` is the second field."""


def _quotes(words: str) -> list[str]:
    return re.findall(r'"([^"]*)"', words)


def _list_plan(words: str) -> Plan:
    """`Select a, b and click Submit.`: each of them, then the button."""
    named = re.sub(r"^Select | and click Submit\.$", "", words)
    wanted = [] if named == "nothing" else named.split(", ")
    return [*((name, "") for name in wanted), ("Submit", "")]


def _nth(words: str) -> Plan:
    found = _ORDINAL.search(words)
    return [(f"#{found[1] if found else 1}", "")]


PLAYS: dict[str, Callable[[str], Plan]] = {
    "click-button": lambda words: [(_quotes(words)[0], "")],
    "click-link": lambda words: [(_quotes(words)[0], "")],
    "click-test-2": lambda words: [("ONE", "")],
    "click-tab": lambda words: [(words.removeprefix("Click on ").rstrip("."), "")],
    "click-option": _list_plan,
    "click-checkboxes": _list_plan,
    "click-collapsible": lambda words: [("Section", ""), ("Submit", "")],
    "enter-text": lambda words: [("#1", _quotes(words)[0]), ("Submit", "")],
    "focus-text-2": _nth,
    "login-user": lambda words: [
        ("#1", _quotes(words)[0]), ("#2", _quotes(words)[1]), ("Login", ""),
    ],
}  # fmt: skip
"""How each task is solved, from its objective."""


def number_of(name: str, found: Sequence[Element]) -> int | None:
    """Find the number of the element that a plan names."""
    if name.startswith("#") and name[1:].isdecimal():
        fields = [i for i, one in enumerate(found, start=1) if one.role == "field"]
        place = int(name[1:]) - 1
        return fields[place] if place < len(fields) else None
    for fits in (str.__eq__, str.startswith):
        same = [
            i for i, one in enumerate(found, start=1) if fits(one.name.casefold(), name.casefold())
        ]
        if same:
            return same[0]
    return None


def play(episode: Episode) -> list[tuple[Observation, str]] | None:
    """Play an episode; return its steps, or None if the page did not reward it in full."""
    steps = []
    reward = None
    for name, typed in PLAYS[episode.task](episode.objective):
        seen = episode.observe()
        number = number_of(name, seen.elements)
        if number is None:
            return None
        action = f"type [{number}] [{typed}]" if typed else f"click [{number}]"
        steps.append((seen, action))
        reward = episode.act(action).reward
    return steps if reward == 1.0 else None


def rows_of(start: Callable[[str, int], Episode], seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Make a row for each step of each solved episode."""
    for task in PLAYS:
        for seed in seeds:
            steps = play(start(task, seed))
            if steps is None:
                print(f"{task} {seed}: not solved, left out", file=sys.stderr)
                continue
            for turn, (seen, action) in enumerate(steps, start=1):
                path = f"{task}-{seed}-{turn}.webp"
                yield {
                    "image": {"bytes": encode(seen.image, lossless=True), "path": path},
                    "question": seen.question,
                    "answer": action,
                    "action": action.partition(" ")[0],
                    "episode": f"{task}-{seed}",
                    "objects": [object_row(one.name, one.box) for one in seen.elements if one.name],
                }


def write(out: Path) -> list[Path]:
    """Write every split's file; each appears under its name only when it is whole."""
    paths = []
    with open_episodes() as start:
        for split, seeds in SEEDS.items():
            path = out / f"steps-{split}.parquet"
            paths.append(write_rows(path, SCHEMA, [list(rows_of(start, seeds))]))
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps of episodes that pages rewarded.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the Parquet files")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        paths = write(args.out)
    except chrome.BrowserMissing as missing:
        sys.exit(str(missing))
    for path in paths:
        print(describe(path))


if __name__ == "__main__":
    main()
