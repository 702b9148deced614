"""Figures of an evaluation: by family, by sample, beside what the tables show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from curation.scores.prediction import Prediction
from mcts.data import AnswerKind, Box, Image, Observation, Point, Question, Step, ZoomCall
from training.evaluation.report import EvaluationReport, cell, compare, make_report
from training.runs import limit_pixels, read_metrics


def question(name: str, family: str) -> Question:
    return Question(
        task="sat2", text=f"{name}?", images=(Image(name, 9, 9),), answer_kind=AnswerKind.TEXT,
        answers=("left",), choices=("left", "right"), family=family,
    )  # fmt: skip


def prediction(question_id: str, answer: str, sample: int = 0, **changed: object) -> Prediction:
    fields = {
        "question_id": question_id, "sample": sample, "response": "", "finish_reason": "stop",
        "error": None, "steps": (Step("It is there.", ()),), "answer": answer,
        "score": float(answer == "left"), "reason": "", "valid": True, "problems": (),
        "looked_at": None, "grounded": (None,),
    }  # fmt: skip
    return Prediction(**{**fields, **changed})  # type: ignore[arg-type]


def reported(answers: dict[str, tuple[str, str]], name: str = "m@1") -> EvaluationReport:
    """A report of questions by name: family and answer."""
    questions = [question(n, family) for n, (family, _) in answers.items()]
    predictions = {
        q.question_id: [prediction(q.question_id, answer)]
        for q, (_, answer) in zip(questions, answers.values(), strict=True)
    }
    return make_report("e", name, "sat2/test", {}, questions, predictions)


MIXED = {
    "a": ("near", "left"), "b": ("near", "left"), "c": ("far", "right"), "d": ("far", "left"),
    "e": ("", "right"),
}  # fmt: skip


def test_every_family_has_its_own_figures_in_order() -> None:
    report = reported(MIXED)
    values = {family: row["accuracy"].value for family, row in report.figures.items()}
    assert values == {"all": 0.6, "(none)": 0.0, "far": 0.5, "near": 1.0}
    assert list(values) == ["all", "(none)", "far", "near"]
    assert [(r["family"], r["questions"]) for r in report.rows()] == [
        ("all", "5"), ("(none)", "1"), ("far", "2"), ("near", "2"),
    ]  # fmt: skip
    assert set(report.plain()["figures"]) == set(values)


def test_a_question_that_cannot_be_graded_is_in_no_figure_of_right_answers() -> None:
    report = reported(MIXED)
    drawn = dict(report.predictions)
    (first,) = drawn[report.questions[0].question_id]
    drawn[first.question_id] = [replace(first, score=None)] * 2
    other = make_report("e", "m@2", "sat2/test", {}, report.questions, drawn)
    assert other.figures["all"]["accuracy"].value == 2 / 4
    assert other.figures["all"]["format"].n == 5 and len(other.scores) == 4
    assert compare(report, other)["all"].n == compare(other, report)["all"].n == 4
    nothing = {q: [replace(p, score=None) for p in some] for q, some in drawn.items()}
    none = make_report("e", "m@3", "sat2/test", {}, report.questions, nothing)
    assert none.accuracy is None and not none.scores and compare(none, report) == {}
    assert none.remark.startswith("no answer can be graded") and not report.remark
    (overall, *_) = none.rows()
    assert overall["family"] == "all" and "right" not in overall and overall["well formed"]
    assert "accuracy" not in none.figures["near"]


def test_answers_without_the_thoughts_that_the_prompt_asks_for_are_told() -> None:
    """As behind a server whose reasoning parser takes them out of the text and says nothing."""
    asked = [question(name, "") for name in "abc"]

    def remark(bare: int, prompt: str) -> str:
        steps = [() if i < bare else (Step("It is there.", ()),) for i in range(len(asked))]
        drawn = {
            q.question_id: [prediction(q.question_id, "left", steps=found)]
            for q, found in zip(asked, steps, strict=True)
        }
        report = make_report("e", "m@1", "sat2/test", {"prompt": prompt}, asked, drawn)
        assert report.plain()["remark"] == report.remark
        return report.remark

    assert remark(2, "points").startswith("2 of 3 answers have no thoughts")
    assert (remark(1, "points"), remark(3, "answer")) == ("", "")


def test_a_form_that_was_half_learned_is_told() -> None:
    asked = [question(str(n), "") for n in range(10)]

    def remark(cut: int, broken: int, failed: int = 0) -> str:
        ends = [{"finish_reason": "length", "problems": ("no_answer",)}] * cut
        ends += [{"problems": ("no_answer",)}] * broken
        ends += [{"error": "server", "finish_reason": "length"}] * failed
        ends += [{"problems": ("thought_without_point",)}] * (len(asked) - len(ends))
        drawn = {
            q.question_id: [prediction(q.question_id, "left", **end)]
            for q, end in zip(asked, ends, strict=True)
        }
        return make_report("e", "m@1", "sat2/test", {}, asked, drawn).remark

    assert remark(2, 1).startswith("of 10 answers 2 are cut off and 1 malformed: a student")
    assert remark(0, 3).startswith("of 10 answers 0 are cut off and 3 malformed")
    assert (remark(1, 1), remark(2, 0, failed=1)[:19]) == ("", "of 9 answers 2 are ")
    assert remark(0, 0, failed=10) == ""


def test_one_family_alone_is_not_told_twice() -> None:
    report = reported({n: ("near", answer) for n, (_, answer) in MIXED.items()})
    assert list(report.figures) == ["all"]
    assert list(compare(report, report)) == ["all"]


def test_a_comparison_has_the_families_and_only_common_questions() -> None:
    worse = {n: (family, "right") for n, (family, _) in MIXED.items() if n != "e"}
    found = compare(reported(MIXED), reported(worse))
    assert set(found) == {"all", "near", "far"}
    assert found["near"].value == 1.0 and found["far"].value == 0.5
    assert found["all"].value == 0.75
    assert compare(reported(MIXED), reported({"z": ("near", "left")})) == {}


def test_of_several_answers_the_most_frequent_counts_and_ties_are_halved() -> None:
    drawn = {"a": "lrrr", "b": "lrlr", "c": "llll"}
    for names, expected in ((("a",), 0.0), (("b",), 0.5), (("c",), 1.0), (("a", "c"), 0.5)):
        questions = [question(name, "") for name in names]
        predictions = {
            q.question_id: [
                prediction(q.question_id, {"l": "left", "r": "right"}[letter], i)
                for i, letter in enumerate(drawn[name])
            ]
            for q, name in zip(questions, names, strict=True)
        }
        figures = make_report("e", "m", "b", {}, questions, predictions).figures["all"]
        assert figures["majority"].value == expected, names
        assert figures["pass@k"].value == 1.0


def test_a_share_is_of_the_steps_that_could_be_judged() -> None:
    steps = (Step("a", ()), Step("b", ()), Step("c", ()))
    questions = [question("a", ""), question("b", "")]
    one, other = (q.question_id for q in questions)
    some = prediction(one, "left", steps=steps, grounded=(True, None, False))
    none = prediction(other, "left", steps=steps, grounded=(None, None, None))
    report = make_report("e", "m", "b", {}, questions, {one: [some], other: [none]})
    assert report.figures["all"]["grounded"].value == 0.5
    assert report.figures["all"]["grounded"].n == 1, "the other question has nothing to judge"
    assert "pointed" not in report.figures["all"], "no step points at all"


def test_an_answer_points_where_every_step_does_or_tells_of_what_it_was_shown() -> None:
    point, call = (Point(1, 1),), ZoomCall(Point(1, 1))
    shown = Observation(Box(0, 0, 5, 5), 9, 9)
    pointing, calling = Step("a", point), Step("b", (), call, shown)
    told, bare = Step("c"), Step("d")
    answers = [
        ((pointing,), (), True), ((pointing, bare), (), False), ((), (), False),
        ((calling, told), (), True), ((calling, told, bare), (), False),
        ((pointing, calling), (), True), ((told, calling), (), False),
        ((pointing,), ("thought_without_point",), False),
        ((pointing,), ("point_outside_image",), False), ((pointing,), ("unclosed_think",), True),
    ]  # fmt: skip
    asked = [question(str(i), "") for i in range(len(answers))]
    drawn = {
        q.question_id: [prediction(q.question_id, "left", steps=steps, problems=problems)]
        for q, (steps, problems, _) in zip(asked, answers, strict=True)
    }
    report = make_report("e", "m", "b", {}, asked, drawn)
    assert report.figures["all"]["pointed"].value == sum(good for *_, good in answers) / len(asked)
    for q, (_, _, good) in zip(asked, answers, strict=True):
        alone = make_report("e", "m", "b", {}, [asked[0], q], drawn)
        assert alone.figures["all"]["pointed"].value == (1.0 if q is asked[0] else (1 + good) / 2)


def test_a_benchmarks_own_figures_are_means_over_the_samples() -> None:
    asked = [replace(question(name, ""), task="pope", answers=("yes",), choices=("yes", "no"))
             for name in "ab"]  # fmt: skip
    answers = {"a": ("yes", "no"), "b": ("yes", "yes")}
    drawn = {
        q.question_id: [
            prediction(q.question_id, answer, i, score=float(answer == "yes"))
            for i, answer in enumerate(answers[q.text[0]])
        ]
        for q in asked
    }
    report = make_report("e", "m", "pope/test", {}, asked, drawn)
    once = [
        make_report("e", "m", "pope/test", {}, asked, {k: [v[i]] for k, v in drawn.items()}).metrics
        for i in range(2)
    ]
    assert report.metrics and once[0] != once[1]
    for name, value in report.metrics.items():
        known = [figures[name] for figures in once if name in figures]
        assert value == pytest.approx(sum(known) / len(known))
    plain = replace(question("a", ""), task="a task without figures of its own")
    alone = {plain.question_id: [prediction(plain.question_id, "left")]}
    assert make_report("e", "m", "mine/test", {}, [plain], alone).metrics == {}


def test_a_figure_is_written_with_its_interval() -> None:
    figure = reported(MIXED).figures["near"]["accuracy"]
    assert cell(figure) == "100.0 [100.0, 100.0]"
    assert cell(figure, "+") == "+100.0 [+100.0, +100.0]"


def test_a_torn_line_of_metrics_is_skipped_and_a_limit_is_written(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "metrics.jsonl"
    assert read_metrics(file) == []
    file.write_text('{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n')
    assert [row["step"] for row in read_metrics(file)] == [1, 3]
    settings = tmp_path / "preprocessor_config.json"
    settings.write_text('{"max_pixels": 900, "size": {"longest_edge": 900}}')
    limit_pixels(tmp_path, None)
    assert "900" in settings.read_text()
    limit_pixels(tmp_path, 400)
    assert "900" not in settings.read_text() and settings.read_text().count("400") == 2


def test_behind_prefixes_figures_are_of_what_the_model_wrote_prefix_by_prefix() -> None:
    asked = question("a", "")
    looked = Step(
        "Left (3, 3).", (Point(3, 3),), ZoomCall(Point(3, 3)),
        Observation("shown", Box(0, 0, 5, 5), 9, 9),
    )  # fmt: skip
    own = Step("So it is left.")
    answers = {1: ("left", "left", "right"), 2: ("right", "right", "right")}

    def predictions(steps: tuple[Step, ...]) -> list[Prediction]:
        return [
            prediction(
                asked.question_id, answer, steps=steps, grounded=(None,) * len(steps), given=1,
                shows_asked=(None,) * len(steps), prefix=("tree", node),
            )
            for node, given in answers.items()
            for answer in given
        ]  # fmt: skip

    def figures(steps: tuple[Step, ...]) -> dict[str, float]:
        settings = {"control": "prefixes", "zoom": {"max_calls": 2}, "samples": 3}
        drawn = {asked.question_id: predictions(steps)}
        made = make_report("e", "m@1", "sat2/test", settings, [asked], drawn)
        return {name: found.value for name, found in made.figures["all"].items()}

    found = figures((looked, looked, own))
    assert (found["calls"], found["places"], found["looked"]) == (1, 1, 1)
    assert found["pointed"] == 1, "its last step goes on from what it was shown"
    assert (found["pass@k"], found["majority"]) == (0.5, 0.5), "of the three behind each"
    bare = figures((looked,))
    assert (bare["calls"], bare["places"], bare["looked"]) == (0, 0, 0)
    assert "pointed" not in bare, "it wrote no steps"
