"""VisualWebArena offline: what to answer, or to do next, on a page that is a screenshot.

Schemas:

- Task configurations (github.com/web-arena-x/visualwebarena, config_files/vwa): one object a file,
  or an array, with `sites`, `task_id`, `intent`, `image` (images that belong to the intent, or
  null), `start_url`, and `eval`: `eval_types` and `reference_answers` (`exact_match`,
  `must_include`, `fuzzy_match`). What needs no live site is a task whose one evaluation is
  `string_match` with an exact answer, or with one phrase that must be included (`a |OR| b` are two
  answers): the gold action is then `stop [answer]`. The others are left out, and counted.
  The page is not published: its screenshot is looked for as `SITE_ID.png` or `ID.png` below the
  image root, and images of the intent by the end of their address. Nothing is fetched.
- Recorded steps in ICAL's form (`warehouse.sources.benchmarks.ical`), and in the reference
  implementation's JSON Lines.

A published phrase that must merely be included is graded as the whole answer here: stricter, so
accuracy is at most that of the live benchmark. Reported metrics: accuracy, the share of steps with
the right kind of action, and accuracy a kind. ViGoRL's published ones are success rates of whole
live episodes, which no offline metric equals.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from mcts.data import AnswerKind
from mcts.zoom.lenses import WEB_LENS
from warehouse.sources.benchmarks import ical, reference
from warehouse.sources.published import Row, published
from warehouse.sources.reading.drafts import (
    Draft,
    DraftImage,
    LeftOut,
    ReadContext,
    Reject,
    Unusable,
)
from warehouse.sources.reading.tabular import read_json_objects
from warehouse.sources.tasks import Task

_OR = "|OR|"


def _draft(row: Row) -> Draft:
    sites, number = row.items("sites"), row.text("task_id")
    if not sites or not all(isinstance(site, str) for site in sites):
        raise Unusable("sites", "there is no site")
    answers = _answers(row.get("eval"))
    images = [_screenshot(row, str(sites[0]), number)]
    shown = row.get("image")
    for name in [] if shown is None else shown if isinstance(shown, list) else [shown]:
        images.append(DraftImage(row.files.get(PurePosixPath(str(name)).name, "image")))
    return row.draft(
        f"OBJECTIVE: {row.text('intent')}\nPREVIOUS ACTIONS: None",
        images,
        answer_kind=AnswerKind.ACTION,
        answers=tuple(f"stop [{answer}]" for answer in answers),
        family=str(sites[0]),
        part_of=f"{sites[0]}_{number}",
    )


def _answers(evaluation: Any) -> tuple[str, ...]:
    if not isinstance(evaluation, dict):
        raise Unusable("eval", "it is missing")
    kinds = evaluation.get("eval_types")
    if kinds != ["string_match"]:
        raise LeftOut("eval.eval_types", f"only string_match can be graded offline, not {kinds}")
    gold = evaluation.get("reference_answers")
    gold = gold if isinstance(gold, dict) else {}
    exact, phrases = gold.get("exact_match"), gold.get("must_include")
    if isinstance(exact, str) and exact.strip() and len(gold) == 1:
        return (exact.strip(),)
    if isinstance(phrases, list) and len(phrases) == 1 and len(gold) == 1:
        found = tuple(part.strip() for part in str(phrases[0]).split(_OR) if part.strip())
        if found:
            return found
    raise LeftOut(
        "eval.reference_answers", f"no one exact answer can be read from {', '.join(gold) or gold}"
    )


def _screenshot(row: Row, site: str, number: str) -> DraftImage:
    """Read a task's screenshot; one without its site's name is of one site alone, as each site
    counts its tasks anew."""
    with suppress(Unusable):
        return DraftImage(row.files.read_named(f"{site}_{number}.png", "screenshot"))
    found = DraftImage(row.files.read_named(f"{number}.png", "screenshot"))
    first = row.shared.setdefault(("screenshot", number), site)
    if first != site:
        raise Unusable(
            "screenshot",
            f"{number}.png is taken by task {number} of {first}; name this one {site}_{number}.png",
        )
    return found


_CONFIGURATIONS = published(
    "VisualWebArena", _draft, ("task_id", "intent", "eval"), suffixes=(".json",)
)


def _read_json(file: Any, context: ReadContext) -> Iterator[Draft | Reject]:
    """A file of configurations, or of ICAL's steps: its first row says which."""
    first = next(iter(read_json_objects(file)), "")
    steps = isinstance(first, dict) and "examples" in first
    yield from (ical.FORMATS if steps else _CONFIGURATIONS)[".json"](file, context)


TASKS = (
    Task(
        "visualwebarena",
        "VisualWebArena offline: configurations with screenshots, or recorded steps (JSON)",
        {".json": _read_json, ".jsonl": reference.read},
        kind=AnswerKind.ACTION,
        prompt="web-action",
        split="test",
        metrics=("actions",),
        lens=WEB_LENS,
    ),
)
