"""The families of questions about rooms: what each asks, and what is true.

    draft = BY_FAMILY["closer"](rng, take, take.frames[0], "closer")

Each function drafts one question about things that are clear in the frame, drawn by lot, or gives
None where this lot has no safe answer (too close to call, too few objects). `questions` puts
a draft into words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vigorl_nano.rooms.balance import Cue
from vigorl_nano.rooms.objects import COLOURS, KINDS
from vigorl_nano.rooms.scene import SIDE
from vigorl_nano.rooms.takes import Frame, Take
from vigorl_nano.rooms.wording import plural, with_article

GAP = 0.07 * SIDE  # pixels between two middles that are told apart in the image
NEARER = 1.15  # ratio of two distances that are told apart
POLES = {
    "left_right": ("left", "right"),
    "above_below": ("above", "below"),
    "front_behind": ("in front", "behind"),
}
Rng = np.random.Generator


@dataclass(slots=True)
class QuestionDraft:
    """A question before its wording and the order of its options are chosen."""

    answer: str
    others: list[str]
    words: dict[str, str]
    about: list[str]
    notes: Sequence[tuple[Cue, float]]  # without the family, which `ask` puts before each cue
    sign: float = 0.0  # +1 or -1 by answer, where the answer is one of two fixed words
    templates: str = ""  # only wordings that hold this


def draw_names(rng: Rng, names: tuple[str, ...] | list[str], size: int) -> list[str]:
    return [names[int(i)] for i in rng.permutation(len(names))[:size]]


def contest(winner: str, loser: str, what: str = "") -> list[tuple[Cue, float]]:
    """Note two kinds (or colours) of which one is the answer."""
    if winner == loser:
        return []
    low, high = sorted((winner, loser))
    pair = ((what, low, high), 1.0 if winner == low else -1.0)
    return [pair, ((what, winner), 1.0), ((what, loser), -1.0)]


def kind(name: str) -> str:
    return name.split()[1]


def relation(rng: Rng, take: Take, seen: Frame, family: str) -> QuestionDraft | None:
    """Ask left or right, above or below, in front or behind."""
    if len(seen.clear) < 2:
        return None
    a, b = draw_names(rng, seen.clear, 2)
    if family == "front_behind":
        near, far = seen.depths[a], seen.depths[b]
        if max(near, far) / min(near, far) < NEARER:
            return None
        gap = far - near
    else:
        axis = 0 if family == "left_right" else 1
        gap = seen.centre(b)[axis] - seen.centre(a)[axis]
        if abs(gap) < GAP:
            return None
    answer, other = POLES[family] if gap > 0 else POLES[family][::-1]
    sign = 1.0 if gap > 0 else -1.0
    notes: list[tuple[Cue, float]] = [(("a", kind(a)), sign), (("b", kind(b)), sign)]
    notes += contest(*((kind(a), kind(b)) if gap > 0 else (kind(b), kind(a))))[:1]
    return QuestionDraft(answer, [other], {"a": a, "b": b}, [a, b], notes, sign)


def closer(rng: Rng, take: Take, seen: Frame, family: str) -> QuestionDraft | None:
    if len(seen.clear) < 2:
        return None
    a, b = sorted(draw_names(rng, seen.clear, 2), key=lambda n: seen.depths[n])
    if seen.depths[b] / seen.depths[a] < NEARER:
        return None
    return QuestionDraft(a, [b], {}, [a, b], contest(kind(a), kind(b)))


def depth_order(rng: Rng, take: Take, seen: Frame, family: str) -> QuestionDraft | None:
    if len(seen.clear) < 3:
        return None
    word = ("nearest", "farthest")[rng.integers(2)]
    names = sorted(draw_names(rng, seen.clear, 3), key=lambda n: seen.depths[n])
    if word == "farthest":
        names.reverse()
    answer, *others = names
    first, second = sorted((seen.depths[answer], seen.depths[others[0]]))
    if second / first < 1.12:
        return None
    pairs = [note for other in others for note in contest(kind(answer), kind(other), word)]
    notes = [(cue, value / 2) for cue, value in pairs]  # the answer is in two of them
    return QuestionDraft(answer, others, {}, sorted(names), notes, templates=word)


def count(rng: Rng, take: Take, seen: Frame, family: str) -> QuestionDraft | None:
    target = take.count
    if len(seen.clear) < len(seen.scene.things):
        return None
    sign = 1.0 if target.answer == target.high else -1.0
    other = target.low if sign > 0 else target.high
    cues: list[Cue] = [
        ("low", target.low),
        ("low", target.low, target.attribute),
        ("value", target.value),
    ]
    about = [n for n in seen.clear if target.value in n.split()]
    words = {"what": plural(target)}
    return QuestionDraft(
        str(target.answer), [str(other)], words, about, [(c, sign) for c in cues], sign
    )


def exists(rng: Rng, take: Take, seen: Frame, family: str) -> QuestionDraft | None:
    """Ask about an object of the room, or mostly about a colour and a kind both in it, apart."""
    names = [t.name for t in seen.scene.things]
    if len(seen.clear) < len(names):
        return None
    sign = float(rng.choice([-1, 1]))
    if sign > 0:
        name = names[rng.integers(len(names))]
        about = [name]
    else:
        colours, kinds = ({n.split()[i] for n in names} for i in (0, 1))
        hard = rng.random() < 0.85
        absent = [
            f"{c} {k}"
            for c in COLOURS
            for k in KINDS
            if f"{c} {k}" not in names
            and ((c in colours and k in kinds) if hard else ((c in colours) != (k in kinds)))
        ]
        if not absent:
            return None
        name = absent[rng.integers(len(absent))]
        about = sorted(n for n in names if kind(n) == kind(name))
        about += sorted(n for n in names if n.split()[0] == name.split()[0])
    colour = name.split()[0]
    answer, other = ("yes", "no") if sign > 0 else ("no", "yes")
    notes = [(("colour", colour), sign), (("kind", kind(name)), sign)]
    return QuestionDraft(answer, [other], {"an": with_article(name)}, about[:3], notes, sign)


def colour(rng: Rng, take: Take, seen: Frame, family: str) -> QuestionDraft | None:
    """Ask the colour of the only object of a kind; the wrong one is in the room if possible."""
    kinds = Counter(t.kind for t in seen.scene.things)
    names = [n for n in seen.clear if kinds[kind(n)] == 1]
    if not names:
        return None
    name = names[rng.integers(len(names))]
    answer = name.split()[0]
    there = sorted({t.colour for t in seen.scene.things} - {answer})
    wrong = there or [c for c in COLOURS if c != answer]
    other = wrong[rng.integers(len(wrong))]
    return QuestionDraft(answer, [other], {"kind": kind(name)}, [name], contest(answer, other))


def object_moved(rng: Rng, take: Take, seen: Frame, family: str) -> QuestionDraft | None:
    stayed = [n for n in take.frames[0].clear if n in take.frames[1].clear and n != take.outcome]
    if not stayed:
        return None
    other = stayed[rng.integers(len(stayed))]
    names = [take.outcome, other]
    return QuestionDraft(take.outcome, [other], {}, names, contest(kind(take.outcome), kind(other)))


def camera_turn(rng: Rng, take: Take, seen: Frame, family: str) -> QuestionDraft | None:
    both = [n for n in take.frames[0].clear if n in take.frames[1].clear]
    if not both:
        return None
    other = "left" if take.outcome == "right" else "right"
    about = draw_names(rng, both, 1 + int(rng.integers(2)))
    return QuestionDraft(take.outcome, [other], {}, about, [], 1.0 if other == "right" else -1.0)


def perspective(rng: Rng, take: Take, seen: Frame, family: str) -> QuestionDraft | None:
    """Ask, standing at one object and facing a second, on which hand the third is."""
    if len(seen.clear) < 3:
        return None
    names = draw_names(rng, seen.clear, 3)
    spots = {t.name: np.array([t.x, t.z]) for t in seen.scene.things}
    a, b, c = (spots[n] for n in names)
    facing, towards = (b - a) / np.linalg.norm(b - a), (c - a) / np.linalg.norm(c - a)
    sine = facing[1] * towards[0] - facing[0] * towards[1]  # positive is clockwise from above
    if abs(sine) < 0.3:
        return None
    sign = 1.0 if sine < 0 else -1.0
    answer, other = ("left", "right") if sign > 0 else ("right", "left")
    words = dict(zip("abc", names, strict=True))
    notes = [((slot, kind(name)), sign) for slot, name in words.items()]
    return QuestionDraft(answer, [other], words, names, notes, sign)


def goal_aim(rng: Rng, take: Take, seen: Frame, family: str) -> QuestionDraft | None:
    # The two options are drawn before the object, so that they do not tell which is right.
    turn, other_turn = ("left", "right") if rng.random() < 0.5 else ("right", "left")
    answer, other = turn, other_turn
    if rng.random() < 0.5:
        answer, other = (turn, "straight ahead")[:: int(rng.choice([-1, 1]))]
    fitting = []
    for name in seen.clear:
        off = (seen.centre(name)[0] - SIDE / 2) / SIDE
        if answer == "straight ahead":
            fits = abs(off) <= 0.05
        else:
            fits = off <= -0.1 if answer == "left" else off >= 0.1
        if fits:
            fitting.append(name)
    if not fitting:
        return None
    name = fitting[rng.integers(len(fitting))]
    pair = "/".join(sorted((answer, other)))
    sign = 1.0 if answer < other else -1.0
    notes = [((pair,), sign), ((pair, kind(name)), sign)]
    return QuestionDraft(answer, [other], {"a": name}, [name], notes)


BY_FAMILY: dict[str, Callable[[Rng, Take, Frame, str], QuestionDraft | None]] = {
    "left_right": relation,
    "above_below": relation,
    "front_behind": relation,
    "closer": closer,
    "depth_order": depth_order,
    "count": count,
    "exists": exists,
    "colour": colour,
    "object_moved": object_moved,
    "camera_turn": camera_turn,
    "perspective": perspective,
    "goal_aim": goal_aim,
}
