"""The answers of a scripted model: texts in the form of real steps, a function of the request.

    question = questions(64)[3]
    texts(request)                       # one per sample, up to the request's stop

A line of reasoning is generated thought by thought, and the next thought depends only on the
request: a rollout in one request and a rollout in five have the same distribution, whatever the
order of requests. The assumptions, all of them ours:

* a thought is 30 to 60 words, about 70 tokens, and cites one point; half of all thoughts are good;
* the model thinks at least the k steps that the prompt demands (the search draws k from 3..7), then
  ends before each further one with probability 0.6;
* it can limit its thoughts (`Request.max_thoughts`), as vLLM by a grammar;
* an answer is right with probability 0.2 + 0.6 x the share of good thoughts before it, so that some
  prefixes are better than others and a search can find them.
"""

from __future__ import annotations

import random
import re

from mcts.data import AnswerKind, Image, Question
from mcts.teachers.base import Request

CHOICES = ("left", "right")
CHARACTERS_PER_TOKEN = 4.4
END_PROBABILITY = 0.6
GOOD = "itself"  # the word that marks a good thought and is in no other

_MIN_THOUGHTS = re.compile(r"at least (\d+) steps")
_SCENE = re.compile(r"scene (\d+)")
_WORDS = tuple(
    word
    for line in (
        "the lamp chair table window shelf corner wall floor shadow edge left right behind near",
        "above small large wooden blue stands rests leans against beside between under that this",
        "which seems to be where light falls and it looks closer than before with surface",
    )
    for word in line.split()
)


def questions(n: int, first: int = 0, side: tuple[int, int] = (1260, 840)) -> list[Question]:
    """Generate questions about one image each, 1260 pixels wide as in the paper (method A3)."""
    return [
        Question(
            "bench",
            f"Is the lamp left or right of the chair in scene {i}?",
            (Image(f"{i:064x}", *side),),
            AnswerKind.TEXT,
            CHOICES,
            (CHOICES[i % 2],),
        )
        for i in range(first, first + n)
    ]


def tokens(text: str) -> int:
    """Estimate the number of tokens of a text."""
    return max(1, round(len(text) / CHARACTERS_PER_TOKEN))


def texts(request: Request) -> list[str]:
    """Generate one completion per sample, up to the request's stop."""
    prompt = "".join(message.text for message in request.messages[:-1])
    partial = request.messages[-1].text
    if not request.continues:
        prompt, partial = prompt + partial, ""
    demanded, scene = _MIN_THOUGHTS.search(prompt), _SCENE.search(prompt)
    assert demanded and scene, "the prompt contains k, and the question the scene"
    gold = int(scene[1]) % 2
    width, height = 1260, 840
    return [
        _line(
            random.Random(request.sample_seed(i)),
            partial,
            int(demanded[1]),
            gold,
            1 if "</think>" in request.stop else request.max_thoughts,
            (width, height),
        )
        for i in range(request.n)
    ]


def _line(
    rng: random.Random, partial: str, demanded: int, gold: int, limit: int, size: tuple[int, int]
) -> str:
    thoughts, good = partial.count("<think>"), partial.count(GOOD)
    if partial.endswith("<answer>"):
        return f"{_answer(rng, thoughts, good, gold)}</answer>"
    lines: list[str] = []
    while thoughts < demanded or rng.random() >= END_PROBABILITY:
        is_good = rng.random() < 0.5
        words = " ".join(rng.choices(_WORDS, k=rng.randint(30, 60)))
        subject = f"the lamp {GOOD}" if is_good else "something"
        at = f"({rng.randint(0, size[0])}, {rng.randint(0, size[1])})"
        lines.append(f"<think>I look at {subject}, {words}, at {at}.</think>")
        thoughts, good = thoughts + 1, good + is_good
        if len(lines) == limit:
            break
    else:
        lines.append(f"<answer>{_answer(rng, thoughts, good, gold)}</answer>")
    return ("\n" if partial else "") + "\n".join(lines)


def _answer(rng: random.Random, thoughts: int, good: int, gold: int) -> str:
    right = rng.random() < 0.2 + 0.6 * (good / thoughts if thoughts else 0.5)
    return CHOICES[gold if right else 1 - gold]
