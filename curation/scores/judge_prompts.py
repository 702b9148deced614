"""Prompts of a judge model about a trace, and how its answers are read. Pure: requests in and out.

    look = region_request(step, crop_id)                 # does the region show what the step says?
    probability(record.completions)                      # 0.93, or None where it is neither

    ask = counting_request("subgoals", question, text)   # how many subgoals has this reasoning?
    count_in(record.completions[0].text)                 # 2, or None where it gave no number

The four counting questions are those of ViGoRL's Table 5, in words of our own. Change a prompt or
how its answer is read and raise `VERSION`, which is part of the method that answers are stored
under.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Sequence

from PIL import Image as PILImage

from mcts.data import Box, Image, Point, Question, Step, content_id
from mcts.image_io import decode
from mcts.prompts import choices_line
from mcts.teachers.base import Completion, ImagePart, Message, Request, TextPart, seed_of

VERSION = 1

# Side of the region shown around a point, as a share of the image's longer side, and in pixels at
# least; and the side to which a smaller region is enlarged, since models see little in few pixels.
REGION_SHARE, LEAST_REGION, LEAST_SIDE = 0.25, 64, 336
ALTERNATIVES = 10  # first tokens whose probability is requested
_BEFORE_A_WORD = " \t\n\"'*_`([Ġ▁"  # what may stand before a word, tokenizers' spaces included

_REGION = """\
This picture is a region cut out of a larger one, around a point that somebody pointed at while \
saying:

"{thought}"

Does the region show the thing that is pointed at, as it is described? Numbers in brackets are \
places in the larger picture and do not matter here. Begin your answer with Yes or No."""

_COUNTING = """\
Below is a question about one or more pictures and the reasoning that somebody wrote to answer it. \
Places are given as (x, y). You do not need to see the pictures, and whether the answer is right \
does not matter.

Question: {question}

Reasoning:
{text}

{ask} Explain in one short sentence, then end with the number alone, as <count>N</count>."""

JUDGED_BEHAVIORS = {
    "regions": "How many different places of the pictures does the reasoning look at? Count a "
    "place once, however often it is mentioned.",
    "subgoals": "How often does the reasoning set itself an intermediate goal, that is, say what "
    "it will find out or look for next before it does so? Plain descriptions are no goals.",
    "verification": "How often does the reasoning look at the pictures again to check something "
    "that it has said or seen before?",
    "backtracking": "How often does the reasoning give up a line of thought as wrong and go on "
    "from an earlier point or in another way?",
}
"""The question to a judge for each behavior it counts."""

DIGEST = content_id(_REGION, _COUNTING, JUDGED_BEHAVIORS)
"""Content hash of all prompts."""


def region_around(point: Point, image: Image) -> Box | None:
    """Return the square around `point`, clipped to the image; None for a point outside it."""
    if not (0 <= point.x <= image.width and 0 <= point.y <= image.height):
        return None
    half = max(REGION_SHARE * max(image.width, image.height), LEAST_REGION) / 2
    return Box(
        max(0.0, point.x - half), max(0.0, point.y - half),
        min(float(image.width), point.x + half), min(float(image.height), point.y + half),
        point.image,
    )  # fmt: skip


def cut_out(data: bytes, region: Box) -> tuple[str, bytes]:
    """Cut out a region of an encoded image; its name (SHA-256) and its bytes, as PNG.

    Raises:
        OSError: the image cannot be decoded.
    """
    edges = (region.x1, region.y1), (region.x2, region.y2)
    (left, top), (right, bottom) = ((math.floor(x), math.floor(y)) for x, y in edges)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    crop = decode(data).crop((left, top, right, bottom))
    grow = LEAST_SIDE / max(crop.size)
    if grow > 1:
        size = (max(1, round(crop.width * grow)), max(1, round(crop.height * grow)))
        crop = crop.resize(size, PILImage.Resampling.LANCZOS)
    out = io.BytesIO()
    crop.save(out, "PNG")
    return hashlib.sha256(out.getvalue()).hexdigest(), out.getvalue()


def region_request(step: Step, crop_id: str, samples: int = 0) -> Request:
    """Request whether the region shows what the step says.

    Args:
        crop_id: SHA-256 of the region's bytes as they travel beside the request.
        samples: 0 asks once for the likeliest answer and the probabilities of its first word, more
            for that many sampled answers.
    """
    prompt = _REGION.replace("{thought}", " ".join(step.thought.split()))
    return Request(
        messages=(Message("user", (ImagePart(crop_id), TextPart(prompt))),),
        n=max(1, samples),
        temperature=1.0 if samples else 0.0,
        top_p=1.0,
        max_tokens=64 if samples else 4,
        stop=(),
        seed=seed_of(prompt, crop_id, samples),
        top_logprobs=0 if samples else ALTERNATIVES,
    )


def probability(completions: Sequence[Completion]) -> float | None:
    """Compute P(yes) among yes and no by the first token; None where neither is likely."""
    mass = {True: 0.0, False: 0.0}
    for token, logprob in completions[0].top_logprobs if completions else ():
        yes = _yes(token)
        if yes is not None:
            mass[yes] += math.exp(min(0.0, logprob))
    both = mass[True] + mass[False]
    # A model whose first word is seldom either is not answering yet: its first word says nothing.
    return mass[True] / both if both >= 0.5 else None


def share_of_yes(completions: Sequence[Completion]) -> tuple[float | None, int]:
    """Compute the share of yes among answers that begin with yes or no, and their number."""
    given = [yes for completion in completions if (yes := _yes(completion.text)) is not None]
    return (sum(given) / len(given) if given else None), len(given)


def _yes(text: str) -> bool | None:
    word = re.match(r"(yes|no)(?![a-z])", text.lstrip(_BEFORE_A_WORD).lower())
    return None if word is None else word[1] == "yes"


def counting_request(behavior: str, question: Question, text: str) -> Request:
    """Request how often a reasoning shows `behavior`, of `JUDGED_BEHAVIORS`; one greedy answer."""
    values = {
        "{question}": f"{question.text}{choices_line(question.choices)}",
        "{text}": text,
        "{ask}": JUDGED_BEHAVIORS[behavior],
    }
    # In one pass: what a reasoning says in braces must not be filled in turn.
    prompt = re.sub("|".join(map(re.escape, values)), lambda gap: values[gap[0]], _COUNTING)
    return Request(
        messages=(Message("user", (TextPart(prompt),)),),
        n=1,
        temperature=0.0,
        top_p=1.0,
        max_tokens=256,
        stop=("</count>",),
        seed=seed_of(prompt),
    )


def count_in(text: str) -> int | None:
    """Parse the number a judge ended with; None where it gave none."""
    found = re.findall(r"<count>\s*(\d{1,4})\s*</count>", text)
    return int(found[-1]) if found else None
