"""The figures benchmarks publish, against figures counted by hand."""

from __future__ import annotations

import pytest

from curation.scores.benchmark_metrics import METRICS, published_metrics
from mcts.data import AnswerKind, Box, Image, Question
from warehouse.sources import tasks

IMAGE = Image("a", 100, 100)


def question(text: str, answer: str = "yes", family: str = "", **fields: object) -> Question:
    choices = ("yes", "no") if answer in ("yes", "no") else ()
    fields = {"choices": choices, "answers": (answer,), "family": family, **fields}
    return Question("t", text, (IMAGE,), AnswerKind.TEXT, **fields)  # type: ignore[arg-type]


def test_pope_counts_yes_as_the_positive_answer() -> None:
    gold = ["yes", "yes", "yes", "no", "no", "no"]
    said = ["yes", "no", "I can't tell", "yes", "no", None]
    questions = [question(str(i), answer, "random") for i, answer in enumerate(gold)]
    figures = METRICS["pope"](questions, said)
    assert figures["accuracy"] == pytest.approx(2 / 6)
    assert figures["precision"] == pytest.approx(1 / 2)
    assert figures["recall"] == pytest.approx(1 / 3)
    assert figures["f1"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert figures["yes_rate"] == pytest.approx(2 / 6)
    assert figures["unreadable"] == pytest.approx(2 / 6)
    assert figures["f1/random"] == figures["f1"] == figures["f1/macro"]


def test_pope_means_its_categories_f1_and_always_yes_has_half_of_precision() -> None:
    questions = [
        question(f"{family}{answer}", answer, family)
        for family in ("random", "popular")
        for answer in ("yes", "no")
    ]
    figures = METRICS["pope"](questions, ["yes"] * 4)
    assert (figures["precision"], figures["recall"], figures["yes_rate"]) == (0.5, 1, 1)
    assert figures["f1/macro"] == pytest.approx(2 / 3)
    assert METRICS["pope"](questions, ["yes", "no", "no", "no"])["f1/macro"] == 0.5
    never = METRICS["pope"](questions, ["no"] * 4)
    assert (never["precision"], never["f1"]) == (None, 0)


def wemath_problem(name: str, steps: list[bool], whole: bool) -> list[tuple[Question, str]]:
    """Questions of one problem, and answers that are right as given."""
    count = len(steps)
    keys = [*(str(n) for n in range(1, count + 1)), "multi"]
    return [
        (question(f"{name}{key}", "5", f"{count}steps_{key}", part_of=name), "5" if right else "6")
        for key, right in zip(keys, [*steps, whole], strict=True)
    ]


def test_wemath_tells_mastery_from_rote_memorization() -> None:
    problems = [
        wemath_problem("2steps_1", [True, True], True),  # mastered
        wemath_problem("2steps_2", [True, False], True),  # by rote, forgiven by the loose score
        wemath_problem("2steps_3", [False, False], True),  # by rote
        wemath_problem("2steps_4", [True, True], False),  # does not generalize
        wemath_problem("3steps_1", [True, True, False], False),  # does not know
        wemath_problem("3steps_2", [False, False, False], False),  # does not know
        wemath_problem("3steps_3", [True, True, True], True),  # mastered
        wemath_problem("3steps_4", [True, False, True], True),  # by rote, forgiven
    ]
    pairs = [pair for problem in problems for pair in problem]
    pairs.append(wemath_problem("3steps_9", [True, True, True], True)[0])  # misses its other parts
    figures = METRICS["wemath"]([q for q, _ in pairs], [a for _, a in pairs])
    assert figures["score_strict"] == pytest.approx((2 + 0.5) / 8)
    assert figures["score_loose"] == pytest.approx((4 + 0.5) / 8)
    assert figures["insufficient_knowledge"] == pytest.approx(2 / 8)
    assert figures["inadequate_generalization"] == pytest.approx(1 / 8)
    assert figures["complete_mastery_strict"] == pytest.approx(2 / 8)
    assert figures["rote_memorization_strict"] == pytest.approx(3 / 5)
    assert figures["rote_memorization_loose"] == pytest.approx(1 / 5)
    assert figures["incomplete"] == pytest.approx(1 / 9)
    assert figures["accuracy/2_step"] == pytest.approx(3 / 4)
    assert figures["accuracy/3_step"] == pytest.approx(2 / 4)
    # the shares of the four kinds of problem are all there is
    four = ("insufficient_knowledge", "inadequate_generalization", "complete_mastery_strict")
    assert sum(figures[name] or 0 for name in four) + 3 / 8 == pytest.approx(1)


def test_screens_are_told_by_platform_and_type() -> None:
    box = (Box(0, 0, 10, 10),)
    families = ["mobile/text", "mobile/text", "mobile/icon", "web/icon"]
    questions = [
        Question("t", str(i), (IMAGE,), AnswerKind.BOX, boxes=box, family=family)
        for i, family in enumerate(families)
    ]
    said = ["(5, 5)", "(5, 11)", "(10, 10)", None]
    figures = published_metrics(("by_family", "by_halves"), questions, said)
    assert figures["accuracy"] == 0.5
    assert figures["accuracy/mobile/text"] == 0.5
    assert figures["accuracy/macro"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert figures["accuracy/mobile"] == pytest.approx(2 / 3)
    assert figures["accuracy/icon"] == 0.5


def test_blink_counts_every_subtask_alike() -> None:
    questions = [question(str(i), "yes", "Jigsaw" if i < 3 else "Counting") for i in range(4)]
    figures = published_metrics(("by_family",), questions, ["yes", "yes", "yes", "no"])
    assert (figures["accuracy"], figures["accuracy/macro"]) == (0.75, 0.5)


def test_robospatial_tells_the_questions_with_yes_or_no_apart() -> None:
    free = Question("t", "free", (IMAGE,), AnswerKind.BOX, boxes=(Box(0, 0, 9, 9),),
                    family="context")  # fmt: skip
    questions = [question("a", "yes", "configuration"), question("b", "no", "compatibility"), free]
    figures = METRICS["robospatial"](questions, ["yes", "yes", "(1, 1)"])
    assert figures["accuracy/yes_no"] == 0.5
    assert figures["accuracy/context"] == 1


def test_actions_are_told_by_kind_and_the_kind_counts_by_itself() -> None:
    questions = [
        Question("t", text, (IMAGE,), AnswerKind.ACTION, answers=(gold,))
        for text, gold in (("a", "click [1]"), ("b", "click [2]"), ("c", "type [3] [x y]"))
    ]
    figures = METRICS["actions"](questions, ["click [1]", "click [22]", "go_back"])
    assert figures["action"] == pytest.approx(2 / 3)
    assert figures["accuracy/click"] == 0.5
    assert figures["accuracy/type"] == 0


def test_nothing_answered_is_nothing_and_not_zero() -> None:
    for name, metric in METRICS.items():
        assert not [v for v in metric([], []).values() if v is not None], name


def test_every_metric_that_a_task_names_is_there() -> None:
    named = {name for task in tasks().values() for name in task.metrics}
    assert named <= set(METRICS)
    with pytest.raises(ValueError, match="no metric named 'luck'; there are: accuracy, by_family"):
        published_metrics(("luck",), [], [])


def test_options_in_several_orders_are_counted_by_order_and_all_of_them_together() -> None:
    """HR-Bench's score is the mean of its orders; one question of two is right in both of them."""
    asked = [("a", ("x", "y"), "order 0"), ("a", ("y", "x"), "order 1"),
             ("b", ("x", "y"), "order 0"), ("b", ("y", "x"), "order 1"),
             ("c", ("x", "y"), "order 0")]  # fmt: skip
    questions = [
        question(text, "x", choices=choices, part_of=order) for text, choices, order in asked
    ]
    figures = METRICS["orders"](questions, ["x", "B", "x", "A", "y"])
    assert figures["accuracy/order 0"] == pytest.approx(2 / 3)
    assert figures["accuracy/order 1"] == pytest.approx(1 / 2)
    assert figures["accuracy/orders"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert figures["accuracy/every_order"] == pytest.approx(1 / 3)
