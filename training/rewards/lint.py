"""Tries to cheat a reward: does any trick earn more than an honest completion, or leave [0, 1]?

    report = lint(make_rewards(PRESETS["grounded"], space).total, space)
    report.findings            # empty when every attempt failed
    report = lint(load_reward("my_rewards:accuracy"), space)     # any function that TRL takes

Each of `training.rewards.exploits`' tricks is scored beside the honest completion it was made from.
Kinds of findings, worst first:

- `error`: the reward raises, or returns something else than one number (or None) a completion;
- `bounds`: a score is outside [0, 1], or not a number;
- `slow`: one text takes longer than `SECONDS`;
- `unsteady`: the same completion scores differently the second time;
- `raised`: a trick earns more than what it was made from;
- `beats right`: a wrong answer with a trick earns at least what a plain right answer does. Only for
  rewards that look at the answer at all, which a part such as a format reward need not.

A reward that pays for points without checking them against the boxes in an image pays for points
pasted at random as well. That is a `limit` of such a reward, listed apart; for a reward that checks
boxes, and had them, it is a finding where it earns more on average (some points hit by luck). A
bonus for looking likewise pays for zoom calls at random places.
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
from training.rewards.exploits import MOVED, PASTED, Probe, Trick, gold_of, probes
from training.rewards.rewards import Reward
from training.rewards.zoom_exploits import CALLED, dialogue_probes

SECONDS = 5.0
KINDS = ("error", "bounds", "slow", "unsteady", "raised", "beats right", "limit")
"""From the worst to what is inherent."""
_SLACK = 1e-6
_LUCK = 0.02  # what points at random may earn on average


@dataclass(frozen=True, slots=True)
class Exploit:
    """One trick that worked."""

    kind: str
    """One of `KINDS`."""
    trick: str
    question: str
    """The text of the question it worked on."""
    completion: str
    """The text, shortened."""
    score: float | None
    against: float | None
    """What it should not have exceeded; None where nothing is compared."""
    note: str = ""

    def sentence(self) -> str:
        """Return the finding as one sentence."""
        text = f"{self.kind}: {self.trick}"
        if self.score is not None and self.against is not None:
            text += f" earns {self.score:.3g} where honest work earns {self.against:.3g}"
        elif self.score is not None:
            text += f" earns {self.score:.3g}"
        return f"{text}{self.note and f' ({self.note})'}: {self.completion!r}"


@dataclass(frozen=True, slots=True)
class LintReport:
    """The findings, and what honest completions earn."""

    findings: tuple[Exploit, ...]
    """Tricks that worked, worst first; one of each kind and trick."""
    limits: tuple[Exploit, ...]
    """What no reward of its kind could detect."""
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


class _RewardFailed(Exception):
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
    dialogues: bool = False,
) -> LintReport:
    """Try every trick on `reward`.

    Args:
        space: the coordinates that the completions are written in.
        one_block: write the thoughts in one think block, where the reward wants them so.
        messages: give completions as chat messages instead of texts.
        dialogues: give dialogues that zoom, which are chat messages always.
    """
    began = time.monotonic()
    linter = _Linter(reward, messages)
    rng = random.Random(seed)
    given = dialogue_probes(space, rng) if dialogues else probes(space, rng, one_block=one_block)
    for probe in given:
        linter.check(probe)
    return linter.report(time.monotonic() - began)


class _Linter:
    """Scores probes and collects what is found."""

    def __init__(self, reward: Reward, messages: bool) -> None:
        self.reward, self.messages = reward, messages
        self.scored = 0
        self.found: dict[tuple[str, str], Exploit] = {}
        self.honest: dict[str, list[float]] = {}
        self.sees_answers = self.sees_boxes = False
        self.gains: list[float] = []
        """What points pasted at random earned, where boxes were known."""

    def check(self, probe: Probe) -> None:
        """Score a probe's honest completions, then its tricks beside them."""
        honest = self._score_honest(probe)
        right, wrong = honest.get("right"), honest.get("wrong")
        differs = right is not None and wrong is not None and right > wrong + _SLACK
        self.sees_answers = self.sees_answers or differs
        least_right = min(
            (s for name, s in honest.items() if name.startswith("right") and s is not None),
            default=None,
        )
        for trick in probe.tricks:
            if any(name in trick.name for kind, name in self.found if kind == "slow"):
                continue  # known; each further one would take as long
            try:
                (score,) = _score(self.reward, probe, [trick.text], self.messages)
            except _RewardFailed as failure:
                self._add(failure.kind, trick.name, probe, trick.text, note=str(failure))
                continue
            self.scored += 1
            if score is None:
                continue
            self._compare(probe, trick, score, honest.get(trick.base))
            unbeaten = least_right if differs and not trick.right else None
            if unbeaten is not None and score >= unbeaten - _SLACK:
                self._add("beats right", trick.name, probe, trick.text, score, unbeaten)

    def _score_honest(self, probe: Probe) -> dict[str, float | None]:
        honest: dict[str, float | None] = {}
        for name, text in probe.honest.items():
            label = f"honest ({name})"
            try:
                first, again = (
                    _score(self.reward, probe, [text], self.messages)[0] for _ in range(2)
                )
            except _RewardFailed as failure:
                self._add(failure.kind, label, probe, text, note=str(failure))
                continue
            self.scored += 1
            if first != again:
                self._add("unsteady", label, probe, text, first, again)
            if first is not None and not 0 <= first <= 1:
                self._add("bounds", label, probe, text, first)
            honest[name] = first
            if first is not None:
                self.honest.setdefault(name, []).append(first)
        return honest

    def _compare(self, probe: Probe, trick: Trick, score: float, base: float | None) -> None:
        """Compare a trick's score with the bounds, and with what it was made from."""
        if not 0 <= score <= 1:
            self._add("bounds", trick.name, probe, trick.text, score)
        if base is None:
            return
        if probe.known and trick.name == MOVED:
            self.sees_boxes = self.sees_boxes or score < base - _SLACK
        if probe.known and trick.name == PASTED:
            self.gains.append(score - base)
        if score > base + _SLACK:
            kind = "limit" if trick.name == CALLED else "raised"
            if trick.name == PASTED:
                kind = "pasted" if probe.known else "limit"
            self._add(kind, trick.name, probe, trick.text, score, base)

    def _add(
        self, kind: str, trick: str, probe: Probe, text: str | tuple[str, ...],
        score: float | None = None, against: float | None = None, note: str = "",
    ) -> None:  # fmt: skip
        """Keep a finding if it is the worst of its kind and trick."""
        text = text if isinstance(text, str) else "\n".join(text)
        shown = text if len(text) <= 160 else f"{text[:100]} ... {text[-50:]}"
        new = Exploit(kind, trick, probe.question.text, shown, score, against, note)
        worst = self.found.setdefault((kind, trick), new)
        if (new.score or 0) - (new.against or 0) > (worst.score or 0) - (worst.against or 0):
            self.found[kind, trick] = new

    def report(self, seconds: float) -> LintReport:
        """Return what was found."""
        pasted = self.found.pop(("pasted", PASTED), None)
        if pasted and sum(self.gains) > _LUCK * len(self.gains):
            kind = "raised" if self.sees_boxes else "limit"
            self.found.setdefault((kind, PASTED), replace(pasted, kind=kind))
        ordered = sorted(self.found.values(), key=lambda f: (KINDS.index(f.kind), f.trick))
        return LintReport(
            tuple(f for f in ordered if f.kind != "limit"),
            tuple(f for f in ordered if f.kind == "limit"),
            self.scored,
            {name: sum(scores) / len(scores) for name, scores in self.honest.items()},
            self.sees_answers,
            self.sees_boxes,
            seconds,
        )


def _score(
    reward: Reward, probe: Probe, texts: Sequence[str | tuple[str, ...]], messages: bool
) -> list[float | None]:
    """Score completions of one question, calling the reward as TRL does."""
    question = probe.question
    gold = gold_of(question)
    values: dict[str, Any] = {
        "question": probe.column, "task": question.task, "family": question.family,
        "answer": gold, "solution": gold, "ground_truth": gold, "answers": list(question.answers),
        "choices": list(question.choices), "min_thoughts": 1,
        "evidence": 1.0,  # the most that a training can measure
        "image_sizes": [[image.width, image.height] for image in question.images],
    }  # fmt: skip
    if probe.zoom:
        values["zoom"] = probe.zoom
    columns = {name: [value] * len(texts) for name, value in values.items()}
    prompt, completions = question.text, list[Any](texts)
    prompts: list[Any] = [prompt] * len(texts)
    if messages or probe.zoom:
        prompts = [[{"role": "user", "content": prompt}]] * len(texts)
        completions = [_messages(text) for text in texts]
    try:
        with _within(SECONDS):
            scores = reward(prompts=prompts, completions=completions, **columns)
    except TimeoutError:
        raise _RewardFailed(
            "slow", f"over {SECONDS:g} s for {max(len(''.join(t)) for t in texts)} characters"
        ) from None
    except Exception as error:
        raise _RewardFailed("error", f"{type(error).__name__}: {error}"[:160]) from None
    try:
        plain = [None if score is None else float(score) for score in scores]
    except (TypeError, ValueError):
        raise _RewardFailed("error", f"gives {scores!r:.80}, not a number a completion") from None
    if len(plain) != len(texts):
        raise _RewardFailed("error", f"gives {len(plain)} scores for {len(texts)} completions")
    # NaN is out of every bound, and worse than all other scores.
    return [math.inf if score is not None and math.isnan(score) else score for score in plain]


def _messages(text: str | tuple[str, ...]) -> list[dict[str, str]]:
    """Return a completion as chat messages, a dialogue with its observations."""
    first, *rest = (text,) if isinstance(text, str) else text or ("",)
    said = [{"role": "assistant", "content": first}]
    for turn in rest:
        said.append({"role": "user", "content": "<observation>Here it is.</observation>"})
        said.append({"role": "assistant", "content": turn})
    return said


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """End the block with TimeoutError after `seconds`, where this thread can take signals."""
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
    """Import the reward `module:function`, also from the working folder.

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
