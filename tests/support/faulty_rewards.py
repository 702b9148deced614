"""Rewards with a fault each, as people have written and published them; the lint must catch them.

Every one is called as TRL calls a reward: `f(prompts, completions, **columns)`.
"""

import json
import re

_FULL = re.compile(r"\s*(<think>[^<]*</think>\s*)+<answer>([^<]*)</answer>\s*")
_POINT = re.compile(r"\((-?\d+), (-?\d+)\)")


def _answer(text):
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return found[1].strip().lower() if found else ""


def _right(text, gold):
    return float(_answer(text) == gold.lower())


def substring_grading(prompts, completions, answer, **columns):
    """Right when the gold answer is somewhere in the completion."""
    return [float(gold.lower() in _answer(c)) for c, gold in zip(completions, answer, strict=True)]


def unbounded_format(prompts, completions, answer, **columns):
    """The form earns 1 + 0.2 for every point but the first: 0.6 accuracy + 0.4 of that."""
    scores = []
    for text, gold in zip(completions, answer, strict=True):
        points = len(set(_POINT.findall(text)))
        form = 1 + 0.2 * (points - 1) if _FULL.fullmatch(text) else 0
        scores.append(0.6 * _right(text, gold) + 0.4 * form)
    return scores


def looking_beats_reading(prompts, completions, answer, **columns):
    """0.6 accuracy + 0.4 form, and the form earns 0.2 more for every call but the first."""
    scores = []
    for messages, gold in zip(completions, answer, strict=True):
        turns = [message["content"] for message in messages if message["role"] == "assistant"]
        text = "\n".join(turns)
        calls = len(set(re.findall(r"\[-?\d+, -?\d+\]", text)))
        form = (1 + 0.2 * max(0, calls - 1)) * bool(re.search(r"</answer>\s*$", text))
        scores.append(min(1.0, (0.6 * _right(text, gold) + 0.4 * form) / 1.24))
    return scores


def second_looks_paid(prompts, completions, answer, **columns):
    """A tenth for a second look, whatever it finds."""
    return [
        0.9 * _right(c, gold) + 0.1 * ("looking again" in c.casefold())
        for c, gold in zip(completions, answer, strict=True)
    ]


def points_never_checked(prompts, completions, answer, **columns):
    """A third for points, wherever they lie."""
    return [
        (2 * _right(c, gold) + (len(set(_POINT.findall(c))) >= 3)) / 3
        for c, gold in zip(completions, answer, strict=True)
    ]


def tags_counted(prompts, completions, answer, **columns):
    """Half for tags, whatever is in them."""
    return [
        0.5 * _right(c, gold) + 0.5 * min(1, c.count("<think>") / 5)
        for c, gold in zip(completions, answer, strict=True)
    ]


def more_is_better(prompts, completions, **columns):
    """Longer texts earn more."""
    return [min(1.0, len(c) / 2000) for c in completions]


def last_of_several_answers(prompts, completions, answer, **columns):
    """The last answer counts, so that several may be tried."""
    return [
        float(gold.lower() in [a.lower() for a in re.findall(r"<answer>([^<]*)", c)])
        for c, gold in zip(completions, answer, strict=True)
    ]


def form_beats_truth(prompts, completions, answer, **columns):
    """The form weighs more than the answer."""
    return [
        0.4 * _right(c, gold) + 0.6 * bool(_FULL.fullmatch(c))
        for c, gold in zip(completions, answer, strict=True)
    ]


def not_a_number(prompts, completions, **columns):
    return [float("nan") if not _POINT.search(c) else 0.5 for c in completions]


def chokes_on_no_answer(prompts, completions, answer, **columns):
    return [float(re.search("<answer>(.*?)</answer>", c)[1] == "left") for c in completions]


def one_score_for_all(prompts, completions, **columns):
    return 0.5


def never_the_same(prompts, completions, **columns):
    never_the_same.calls = getattr(never_the_same, "calls", 0) + 1
    return [never_the_same.calls % 7 / 7] * len(completions)


def fair(prompts, completions, question, **columns):
    """No fault: strict, bounded, and it pays for nothing but the answer."""
    scores = []
    for text, column in zip(completions, question, strict=True):
        found = re.search(r"\A[^<]*(?:<think>[^<]*</think>\s*)*<answer>([^<]*)</answer>\s*\Z", text)
        scores.append(float(bool(found) and found[1] in json.loads(column)["answers"]))
    return scores
