"""Tries to cheat a reward: whether any trick earns more than honest work, or leaves [0, 1].

    report = lint(make_rewards(PRESETS["grounded"], space).total, space)
    report.findings            # empty when every attempt failed
    report = lint(load_reward("my_rewards:accuracy"), space)     # anyone's, as TRL would call it

Each of `training.rewards.exploits`' tricks is scored beside the honest completion it was made from.
What is found, worst first:

- `error`: the reward fails, or gives something that is not one number (or None) a completion;
- `bounds`: a score is outside [0, 1], or not a number;
- `slow`: one text takes longer than `SECONDS`;
- `unsteady`: the same completions score otherwise the second time;
- `raised`: a trick earns more than what it was made from;
- `beats right`: a wrong answer with a trick earns at least what a plain right answer does. Only for
  rewards that look at the answer at all, which a part such as a format reward need not.

Who pays for points without holding them against the boxes in an image, pays for points pasted at
random as well. That is a `limit` of such a reward, told apart; of one that looks at boxes, and had
them, it is a finding where it earns more on average (a point in many hits something by luck).
"""

from __future__ import annotations

import importlib
import math
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mcts.coordinates import CoordinateSpace
from training.rewards.exploit_edits import MOVED, PASTED
from training.rewards.exploits import Probe, gold_of, probes
from training.rewards.rewards import Reward

SECONDS = 5.0
KINDS = ("error", "bounds", "slow", "unsteady", "raised", "beats right", "limit")
"""From worst to what can't be helped."""
_SLACK = 1e-6
_LUCK = 0.02  # what points at random may earn on average


@dataclass(frozen=True, slots=True)
class Finding:
    """One trick that worked."""

    kind: str
    """One of `KINDS`."""
    trick: str
    question: str
    """The text of the question it worked on."""
    completion: str
    """What was said, shortened."""
    score: float | None
    against: float | None
    """What it should not have exceeded; None where that isn't the point."""
    note: str = ""

    def sentence(self) -> str:
        """What happened, for a person."""
        told = f"{self.kind}: {self.trick}"
        if self.score is not None and self.against is not None:
            told += f" earns {self.score:.3g} where honest work earns {self.against:.3g}"
        elif self.score is not None:
            told += f" earns {self.score:.3g}"
        return f"{told}{self.note and f' ({self.note})'}: {self.completion!r}"


@dataclass(frozen=True, slots=True)
class LintReport:
    """What came of it."""

    findings: tuple[Finding, ...]
    """Tricks that worked, worst first; one of each kind and trick."""
    limits: tuple[Finding, ...]
    """What no reward of its kind could tell."""
    completions: int
    """How many were scored."""
    honest: dict[str, float]
    """Mean score of each sort of honest completion."""
    sees_answers: bool
    """Whether right and wrong answers score differently at all."""
    sees_boxes: bool
    """Whether points on the objects in an image score differently from points elsewhere."""
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether every attempt failed."""
        return not self.findings


class _Broken(Exception):
    def __init__(self, kind: str, note: str) -> None:
        super().__init__(note)
        self.kind = kind


def lint(
    reward: Reward,
    space: CoordinateSpace,
    *,
    seed: int = 0,
    one_block: bool = False,
    messages: bool = False,
) -> LintReport:
    """Play every trick on `reward`.

    Args:
        space: the coordinates that the completions are written in.
        one_block: write the thoughts in one think block, where the reward wants them so.
        messages: give completions as chat messages instead of texts.
    """
    began, scored = time.monotonic(), 0
    found: dict[tuple[str, str], Finding] = {}
    sums: dict[str, list[float]] = {}
    sees = sees_boxes = False
    gains: list[float] = []

    def note(
        kind: str, trick: str, probe: Probe, text: str, *figures: float | None, why: str = ""
    ) -> None:
        shown = text if len(text) <= 160 else f"{text[:100]} ... {text[-50:]}"
        score, against = (*figures, None, None)[:2]
        new = Finding(kind, trick, probe.question.text, shown, score, against, why)
        worst = found.setdefault((kind, trick), new)
        if (new.score or 0) - (new.against or 0) > (worst.score or 0) - (worst.against or 0):
            found[kind, trick] = new

    for probe in probes(space, random.Random(seed), one_block=one_block):
        honest: dict[str, float | None] = {}
        for name, text in probe.honest.items():
            try:
                first, again = (_score(reward, probe, [text], messages)[0] for _ in range(2))
            except _Broken as broken:
                note(broken.kind, f"honest ({name})", probe, text, why=str(broken))
                continue
            scored += 1
            if first != again:
                note("unsteady", f"honest ({name})", probe, text, first, again)
            if first is not None and not 0 <= first <= 1:
                note("bounds", f"honest ({name})", probe, text, first)
            honest[name] = first
            if first is not None:
                sums.setdefault(name, []).append(first)
        right, wrong = honest.get("right"), honest.get("wrong")
        differs = right is not None and wrong is not None and right > wrong + _SLACK
        sees = sees or differs
        least_right = min((s for n, s in honest.items() if n.startswith("right") and s is not None),
                          default=None)  # fmt: skip
        for trick in probe.tricks:
            if any(name in trick.name for kind, name in found if kind == "slow"):
                continue  # known; each further one would take as long
            try:
                (score,) = _score(reward, probe, [trick.text], messages)
            except _Broken as broken:
                note(broken.kind, trick.name, probe, trick.text, why=str(broken))
                continue
            scored += 1
            if score is None:
                continue
            base = honest.get(trick.base)
            if not 0 <= score <= 1:
                note("bounds", trick.name, probe, trick.text, score)
            if base is not None and probe.known and trick.name == MOVED:
                sees_boxes = sees_boxes or score < base - _SLACK
            if base is not None and probe.known and trick.name == PASTED:
                gains.append(score - base)
            if base is not None and score > base + _SLACK:
                kind = "raised"
                if trick.name == PASTED:
                    kind = "pasted" if probe.known else "limit"
                note(kind, trick.name, probe, trick.text, score, base)
            if (
                differs
                and not trick.right
                and least_right is not None
                and score >= least_right - _SLACK
            ):
                note("beats right", trick.name, probe, trick.text, score, least_right)
    lucky = found.pop(("pasted", PASTED), None)
    if lucky and sum(gains) > _LUCK * len(gains):
        kind = "raised" if sees_boxes else "limit"
        found.setdefault((kind, PASTED), replace(lucky, kind=kind))
    ordered = sorted(found.values(), key=lambda f: (KINDS.index(f.kind), f.trick))
    return LintReport(
        tuple(f for f in ordered if f.kind != "limit"),
        tuple(f for f in ordered if f.kind == "limit"),
        scored,
        {name: sum(scores) / len(scores) for name, scores in sums.items()},
        sees,
        sees_boxes,
        time.monotonic() - began,
    )


def _score(
    reward: Reward, probe: Probe, texts: Sequence[str], messages: bool
) -> list[float | None]:
    """The scores of completions of one question, called as TRL would."""
    question = probe.question
    gold = gold_of(question)
    values: dict[str, Any] = {
        "question": probe.column, "task": question.task, "family": question.family,
        "answer": gold, "solution": gold, "ground_truth": gold, "answers": list(question.answers),
        "choices": list(question.choices), "min_thoughts": 1,
        "image_sizes": [[image.width, image.height] for image in question.images],
    }  # fmt: skip
    columns = {name: [value] * len(texts) for name, value in values.items()}
    prompt, completions = question.text, list[Any](texts)
    prompts: list[Any] = [prompt] * len(texts)
    if messages:
        prompts = [[{"role": "user", "content": prompt}]] * len(texts)
        completions = [[{"role": "assistant", "content": text}] for text in texts]
    try:
        with _within(SECONDS):
            scores = reward(prompts=prompts, completions=completions, **columns)
    except TimeoutError:
        raise _Broken("slow", f"over {SECONDS:g} s for {max(map(len, texts))} characters") from None
    except Exception as error:
        raise _Broken("error", f"{type(error).__name__}: {error}"[:160]) from None
    try:
        plain = [None if score is None else float(score) for score in scores]
    except (TypeError, ValueError):
        raise _Broken("error", f"gives {scores!r:.80}, not a number a completion") from None
    if len(plain) != len(texts):
        raise _Broken("error", f"gives {len(plain)} scores for {len(texts)} completions")
    # What is no number is out of every bound, and worse than all others.
    return [math.inf if score is not None and math.isnan(score) else score for score in plain]


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Ends the block with TimeoutError after `seconds`, where this thread can take signals."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        yield
        return

    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def load_reward(name: str) -> Reward:
    """The reward that `module:function` names, looked for in the working folder as well.

    Raises:
        ValueError: there is no such module or function.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, "")
    try:
        loaded = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise ValueError(f"reward {name!r}: {error}") from None
    except AttributeError:
        raise ValueError(f"reward {name!r}: {module} has no {function!r}") from None
    finally:
        sys.path.remove("")
    if not callable(loaded):
        raise ValueError(f"reward {name!r}: {function} can't be called")
    return loaded
