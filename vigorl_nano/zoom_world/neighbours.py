"""Worked dialogues about the sign beside another: the places next to it are looked at in turn.

    example = demonstrate_neighbour(rng, scene, question)   # a question of kind `relative_position`
    example = places_beside(rng, scene, question)           # all of these places, without a look

The model hardly sees in the whole picture which sign stands beside another. Where it can stand
follows from the place of the sign that the question names: one place of the grid to the asked side,
or two. Whether it stands there, the crop shows. As in `demonstrations`, what is said is true and
the policy is noisy: a look to another side, an answer before the sign was found.
"""

from __future__ import annotations

import numpy as np

from vigorl_nano.zoom_world.demonstrations import (
    DIGITS,
    MOST_LOOKS,
    NAME,
    NOISY,
    PHRASE,
    STOPS_KNOWING,
    Example,
    Place,
    Policy,
    Seen,
    answer,
    ask_with_zoom,
    crop_offset,
    draw_thorough,
    draw_turning_back,
    end_turn,
    inside,
    look_closer,
    point_at,
    stand_in,
    weigh_choice,
    write_call,
)
from vigorl_nano.zoom_world.scene import PLACES, SIDES, Question, Scene

FARTHEST = 2
"""Places to the side where the next sign can stand, see `scene.neighbour`."""
EDGE = 0.05
"""Of the picture's side: no sign's middle is nearer to its border."""
MOVED = 6.0
"""What the error of a digit counts that is not the named sign's own."""

Beside = tuple[str, int]
"""A place beside the named sign: the side, and how many places of the grid away."""


def demonstrate_neighbour(
    rng: np.random.Generator,
    scene: Scene,
    question: Question,
    blind: bool = False,
    policy: Policy = NOISY,
) -> Example:
    """Write a dialogue about the sign beside the one that the question names.

    Args:
        blind: its pictures are grey, so what it says of them is made up and it finds nothing.
        policy: how it decides to go on.
    """
    assert question.anchor is not None
    made, start = ask_with_zoom(question, blind)
    policy = draw_thorough(rng, policy)
    anchor = stand_in(rng, scene, question) if blind else question.anchor
    asked = next(side for side in SIDES if f" {side} the " in question.text)
    point_at(made, anchor)
    named_at = made.text.rindex("(") + 1
    made.add("\n")
    looked: list[Beside] = []
    seen: list[Seen] = []
    known = False
    while place := next_place(rng, (anchor.x, anchor.y), asked, looked, policy):
        in_vain = bool(looked) and not known
        looked.append(place)
        at = beside((anchor.x, anchor.y), *place)
        turns_back = in_vain and rng.random() < policy.turns_back
        opening = draw_turning_back(rng) if turns_back else ""
        x, y = point_beside(made, question, place, asked, named_at, at, opening)
        write_call(made, None, x, y)
        end_turn(made, start)
        last = len(looked) == MOST_LOOKS
        start, sign, span = look_closer(made, scene, inside(np.array(at) + crop_offset(rng)), last)
        if sign is not None and span:
            seen.append((sign, span))
        made.add("\n")
        known = any(sign in question.meant for sign, _ in seen)
        found = span if span and place[0] == asked else (0, 1)
        made.evidence.append((weigh_choice(made, policy) - 1, *found))
        if last or rng.random() < (STOPS_KNOWING if known else policy.stops_guessing):
            break
    answer(rng, made, question, seen)
    end_turn(made, start)
    return made


def places_beside(rng: np.random.Generator, scene: Scene, question: Question) -> Example:
    """Make an exercise of which coordinates alone are learned: where the named sign is, and all
    places beside it, in any order.
    """
    assert question.anchor is not None
    made, _ = ask_with_zoom(question)
    point_at(made, question.anchor)
    named_at = made.text.rindex("(") + 1
    anchor = (question.anchor.x, question.anchor.y)
    places = [(side, away) for side in SIDES for away in range(1, FARTHEST + 1)]
    for i in rng.permutation(len(places)).tolist():
        at = beside(anchor, *places[i])
        if on_wall(at):
            made.add("\n")
            point_beside(made, question, places[i], "", named_at, at)
    return made


def next_place(
    rng: np.random.Generator, anchor: Place, asked: str, looked: list[Beside], policy: Policy
) -> Beside | None:
    """Return the place to look at next; None if no place is left.

    Args:
        asked: the side that the question is about.
        looked: the places looked at before.
    """
    right = [(asked, away) for away in range(1, FARTHEST + 1)]
    others = [(side, 1) for side in SIDES if side != asked]
    right, others = (
        [each for each in places if each not in looked and on_wall(beside(anchor, *each))]
        for places in (right, others)
    )
    if right and (not others or rng.random() < policy.asked_side):
        return right[0]
    return others[rng.integers(len(others))] if others else None


def beside(anchor: Place, side: str, away: int) -> Place:
    """Return the middle of a place of the grid beside a sign's."""
    across, down = SIDES[side]
    return anchor[0] + across * away / PLACES, anchor[1] + down * away / PLACES


def on_wall(place: Place) -> bool:
    """Whether a sign can stand at a place."""
    return all(EDGE < share < 1 - EDGE for share in place)


def point_beside(
    made: Example,
    question: Question,
    place: Beside,
    asked: str,
    named_at: int,
    at: Place,
    opening: str = "",
) -> tuple[str, str]:
    """Write where a place beside the named sign is; return its coordinates in thousandths.

    Args:
        asked: the side that the question is about; empty if the choice of a place is not learned.
        named_at: where the named sign's coordinates stand, which these ones should look at.
        opening: a sentence before it.
    """
    side, away = place
    made.add("<think>")
    if opening:
        made.weights.append((*made.add(f"{opening} "), PHRASE))
    made.add("The")
    begun, end = made.add(" place" if away == 1 else " next place")
    if side == asked:
        word = made.text.index(question.text) + question.text.index(f" {side} the ") + 1
        made.evidence.append((end - 1, word, word + 1))
    _, chosen = made.add(f" {side.split()[0]}")
    if asked:
        made.weights.append((begun, chosen, NAME))
    made.add(f"{' of' if side.endswith(' of') else ''} it is (")
    written = tuple(str(round(1000 * share)) for share in at)
    given = made.text[named_at : made.text.index(")", named_at)].split(", ")
    starts = (named_at, named_at + len(given[0]) + 2)
    for axis, (number, source, begins) in enumerate(zip(written, given, starts, strict=True)):
        if axis:
            made.add(", ")
        for i, digit in enumerate(number):
            begun, end = made.add(digit)
            same = begins + len(source) - len(number) + i  # the digit of the same worth, if any
            moved = same < begins or made.text[same] != digit
            made.weights.append((begun, end, MOVED if moved else DIGITS[min(i, 2)]))
            span = (same, same + 1) if same >= begins else (begins, begins + len(source))
            made.evidence.append((begun - 1, *span))
    made.add(").</think>")
    return written[0], written[1]
