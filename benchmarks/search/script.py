"""What the scripted model says: texts shaped like real steps, a function of the request alone.

    question = questions(64)[3]
    texts(request)                       # one a sample, each ended where the request's stop ends it

A line of reasoning is written thought by thought, and what comes next depends on nothing but what
the request shows: so a rollout in one request and a rollout in five are of one distribution, and
whoever asks in another order is answered by the same model. The assumptions, all of them ours:

* a thought is 30 to 60 words, about 70 tokens, and cites one point; half of all thoughts are good;
* the model thinks at least the k steps that the prompt demands (the search draws k from 3..7), then
  ends before each further one with probability 0.6;
* it can count its thoughts if it is asked to (`Request.max_thoughts`), as vLLM by a grammar;
* an answer is right with probability 0.2 + 0.6 x the share of good thoughts before it, so there is
  something that a search can find: a beginning that is better than another.
"""

from __future__ import annotations

import random
import re

from mcts.data import AnswerKind, Image, Question
from mcts.teachers.base import Request

CHOICES = ("left", "right")
CHARACTERS_A_TOKEN = 4.4
ENDS = 0.6
GOOD = "itself"  # the word that marks a good thought, and is in no other

_DEMANDED = re.compile(r"at least (\d+) steps")
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
    """Questions about one picture each, 1260 pixels wide as the paper shows them (method A3)."""
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
    """About as many tokens as a text has."""
    return max(1, round(len(text) / CHARACTERS_A_TOKEN))


def texts(request: Request) -> list[str]:
    """One completion a sample, ended by the request's stop."""
    asked = "".join(message.text for message in request.messages[:-1])
    begun = request.messages[-1].text
    if not request.continues:
        asked, begun = asked + begun, ""
    demanded, scene = _DEMANDED.search(asked), _SCENE.search(asked)
    assert demanded and scene, "a bench's prompt tells k, and its question the scene"
    gold = int(scene[1]) % 2
    width, height = 1260, 840
    return [
        _line(
            random.Random(request.sample_seed(i)),
            begun,
            int(demanded[1]),
            gold,
            1 if "</think>" in request.stop else request.max_thoughts,
            (width, height),
        )
        for i in range(request.n)
    ]


def _line(
    draw: random.Random, begun: str, demanded: int, gold: int, most: int, size: tuple[int, int]
) -> str:
    thoughts, good = begun.count("<think>"), begun.count(GOOD)
    if begun.endswith("<answer>"):
        return f"{_answer(draw, thoughts, good, gold)}</answer>"
    said: list[str] = []
    while thoughts < demanded or draw.random() >= ENDS:
        fine = draw.random() < 0.5
        words = " ".join(draw.choices(_WORDS, k=draw.randint(30, 60)))
        subject = f"the lamp {GOOD}" if fine else "something"
        at = f"({draw.randint(0, size[0])}, {draw.randint(0, size[1])})"
        said.append(f"<think>I look at {subject}, {words}, at {at}.</think>")
        thoughts, good = thoughts + 1, good + fine
        if len(said) == most:
            break
    else:
        said.append(f"<answer>{_answer(draw, thoughts, good, gold)}</answer>")
    return ("\n" if begun else "") + "\n".join(said)


def _answer(draw: random.Random, thoughts: int, good: int, gold: int) -> str:
    right = draw.random() < 0.2 + 0.6 * (good / thoughts if thoughts else 0.5)
    return CHOICES[gold if right else 1 - gold]
