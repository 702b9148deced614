"""Questions about drawn rooms: their answers are facts of the scene, and no text gives them away.

    take = sample_take(rng, low=2, high=8, change="turned")
    question = ask(rng, take, "camera_turn", Balance(slack=2))

`ask` has several questions drafted (`families` says what each family asks), puts them into
words (`wording`) and keeps the one that best evens out what words have hinted at so far
(`balance`). `takes` makes takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from vigorl_nano.rooms.balance import Balance, Cue, Notes
from vigorl_nano.rooms.families import BY_FAMILY, QuestionDraft, Rng, draw_names
from vigorl_nano.rooms.takes import Take
from vigorl_nano.rooms.wording import CHANGE, WORDING

DRAFTS = 8  # a question is the best balanced of so many


@dataclass(frozen=True, slots=True)
class RoomQuestion:
    family: str
    text: str
    options: tuple[str, ...]
    answer: str
    frames: tuple[int, ...]  # which of the take's frames it shows, in order
    about: tuple[tuple[str, int], ...]  # (object name, place in `frames`): what one must look at
    notes: Notes = ()  # what its words hint at (see `balance`)


def ask(rng: Rng, take: Take, family: str, balance: Balance, frame: int = 0) -> RoomQuestion | None:
    """Ask a question of the family about the take; None if it has none that keeps balance."""
    if CHANGE.get(family) not in (None, take.change):
        return None
    best: RoomQuestion | None = None
    for _ in range(DRAFTS):
        draft = BY_FAMILY[family](rng, take, take.frames[frame], family)
        if draft is None:
            continue
        question = put_into_words(rng, draft, family, frame)
        if not balance.allows(question.notes):
            continue
        if best is None or balance.tips(question.notes) < balance.tips(best.notes):
            best = question
    if best is not None:
        balance.add(best.notes)
    return best


def put_into_words(rng: Rng, draft: QuestionDraft, family: str, frame: int) -> RoomQuestion:
    """Give a draft a wording and an order of options, both by lot."""
    wordings = [w for w in WORDING[family] if draft.templates in w]
    wording = wordings[rng.integers(len(wordings))]
    place, size = int(rng.integers(1 + len(draft.others))), 1 + len(draft.others)
    others = draw_names(rng, draft.others, len(draft.others))
    options = (*others[:place], draft.answer, *others[place:])
    words = draft.words
    if family in ("closer", "depth_order"):  # they name the objects in the order of the options
        words = dict(zip("abc", options, strict=False))
    notes: list[tuple[Cue, float]] = [*draft.notes]
    notes += [(("place", i), 1.0 if i == place else -1 / (size - 1)) for i in range(size - 1)]
    if draft.sign:
        notes += [(("answer",), draft.sign), (("wording", wording), draft.sign)]
    frames = (0, 1) if family in CHANGE else (frame,)
    about = tuple((name, i) for name in draft.about for i in range(len(frames)))
    return RoomQuestion(
        family,
        wording.format(**words),
        options,
        draft.answer,
        frames,
        about,
        merge_notes(family, notes),
    )


def merge_notes(family: str, notes: list[tuple[Cue, float]]) -> Notes:
    """Sum the notes of each cue, under its family."""
    sums: dict[Cue, float] = {}
    for cue, value in notes:
        sums[family, *cue] = sums.get((family, *cue), 0.0) + value
    return tuple((cue, value) for cue, value in sums.items() if value)
