"""Words alone answer nothing: no reader of question and options does better than chance."""

import numpy as np
import pytest

from tests.support.text_only import fitted
from vigorl_nano.rooms.balance import Balance, even_out
from vigorl_nano.rooms.families import BY_FAMILY
from vigorl_nano.rooms.questions import RoomQuestion, ask, put_into_words
from vigorl_nano.rooms.sample import blocks, plan_block
from vigorl_nano.rooms.takes import sample_take
from vigorl_nano.rooms.wording import CHANCE, CHANGE, FAMILIES

SEED = 88_001
Questions = dict[str, list[RoomQuestion]]


pytestmark = pytest.mark.usefixtures("one_thread")


def by_family(questions: list[RoomQuestion]) -> Questions:
    return {family: [q for q in questions if q.family == family] for family in FAMILIES}


def as_they_come(seed: int, number: int) -> Questions:
    """Drafts that nothing has balanced: what a reader learns from them is how rooms lean."""
    rng, found = np.random.default_rng(seed), []
    for i in range(number):
        take = sample_take(rng, 2, 8, ("moved", "turned")[i % 2], images=False)
        for family in FAMILIES:
            if CHANGE.get(family) in (None, take.change):
                for _ in range(3):
                    draft = BY_FAMILY[family](rng, take, take.frames[0], family)
                    found += [put_into_words(rng, draft, family, 0)] if draft else []
    return by_family(found)


def at_most_chance(right: list[bool], family: str, what: str) -> None:
    """Three standard errors of guessing over so many questions are allowed."""
    chance = CHANCE[family]
    bound = chance + 3 * np.sqrt(chance * (1 - chance) / len(right))
    assert np.mean(right) <= bound, f"{family} {what}: {np.mean(right):.3f} > {bound:.3f}"


def most_common_answer(questions: list[RoomQuestion]) -> list[bool]:
    """The answer word that is right most often for the set of options, and the commonest place."""
    tally: dict[tuple, list[str]] = {}
    for q in questions:
        tally.setdefault(tuple(sorted(q.options)), []).append(q.answer)
    best = {options: max(set(a), key=a.count) for options, a in tally.items()}
    fixed = [q for q in questions if len(tally[tuple(sorted(q.options))]) >= 8]
    return [q.answer == best[tuple(sorted(q.options))] for q in fixed]


@pytest.mark.slow
def test_a_reader_who_knows_how_rooms_lean_gains_nothing_from_a_split():
    parts = [q for b in blocks("x", SEED, 1200) for _, kept in plan_block(b) for q in kept]
    kept, lore = by_family(parts), as_they_come(SEED + 1, 240)
    gains = {}
    for family in FAMILIES:
        half = len(lore[family]) // 2
        guess = fitted(lore[family][:half], strength=0.003)
        gains[family] = np.mean(guess(lore[family][half:]))
        at_most_chance(list(guess(kept[family])), family, "from how rooms lean")
    # The same reader does read unbalanced questions: it is not too weak to tell.
    leaning = ("above_below", "front_behind", "closer", "depth_order")
    assert np.mean([gains[f] - CHANCE[f] for f in leaning]) > 0.06, gains


@pytest.mark.slow
def test_a_reader_trained_on_some_blocks_gains_nothing_on_others():
    parts = [
        by_family([q for _, kept in plan_block(block) for q in kept])
        for block in blocks("x", SEED + 2, 6000)
    ]
    everything = []
    for family in FAMILIES:
        right: list[bool] = []
        for fold in range(5):
            held = [q for i, part in enumerate(parts) if i % 5 == fold for q in part[family]]
            rest = [q for i, part in enumerate(parts) if i % 5 != fold for q in part[family]]
            right += list(fitted(rest, strength=0.003)(held))
        print(f"{family}: {np.mean(right):.3f} of {len(right)}")
        at_most_chance(right, family, "held-out blocks")
        counts = most_common_answer([q for part in parts for q in part[family]])
        if counts:
            at_most_chance(counts, family, "commonest answer")
        everything += [r - CHANCE[family] for r in right]
    assert np.mean(everything) <= 3 * 0.5 / np.sqrt(len(everything))


@pytest.mark.parametrize("share", [4, 20])
def test_in_a_block_places_and_answers_come_equally_often(share):
    (block,) = blocks("x", SEED + 3, 12 * share)
    for family, questions in by_family([q for _, kept in plan_block(block) for q in kept]).items():
        places = [q.options.index(q.answer) for q in questions]
        sums = np.bincount(places, minlength=round(1 / CHANCE[family]))
        assert sums.max() - sums.min() <= 2, (family, sums)
        answer = sum(v for q in questions for cue, v in q.notes if cue == (family, "answer"))
        assert abs(answer) <= 2, family


def test_questions_sampled_in_turn_never_tip_a_cue_beyond_the_slack():
    rng, balance = np.random.default_rng(4), Balance(slack=2)
    for i in range(60):
        take = sample_take(rng, 2, 8, (None, "moved", "turned")[i % 3], images=False)
        for family in FAMILIES:
            ask(rng, take, family, balance)
    assert balance.tally and max(map(abs, balance.tally.values())) <= 2


def test_balance_turns_down_what_tips_a_cue_and_takes_what_rights_it():
    balance = Balance(slack=1)
    up, down = ((("lamp",), 1.0),), ((("lamp",), -1.0),)
    balance.add(up)
    assert not balance.allows(up) and balance.allows(down)
    assert balance.tips(down) < 0 < balance.tips(up)


def test_the_evened_subset_cancels_where_it_can():
    leaning = [((("sofa", "vase"), 1.0),)] * 16 + [((("sofa", "vase"), -1.0),)] * 4
    chosen = even_out(leaning, 8)
    assert len(set(chosen)) == 8 and sum(leaning[i][0][1] for i in chosen) == 0
    with pytest.raises(ValueError, match="9 wanted of 8"):
        even_out(leaning[:8], 9)
