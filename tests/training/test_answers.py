"""What an evaluation makes of responses: answers, a second try, the ledger of looks, controls."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image as PILImage

from mcts.config import SearchConfig
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Box, Image, Observation, Point, Question, Step, ZoomCall
from mcts.image_io import decode
from mcts.journal.journal import Journal
from mcts.journal.records import Failure, Key, Record
from mcts.policy import Continuation
from mcts.teachers.base import TeacherError
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens
from tests.support.scripted import QUESTION, ScriptedPolicy
from tests.support.zoom_trees import look, tell
from tests.training.test_report import prediction
from training.evaluation.answers import AskedAgain, sample_answers
from training.evaluation.controls import (
    control_images,
    crop_elsewhere,
    image_donors,
    noise_crop,
    with_crops,
    with_images,
)
from training.evaluation.ledger import figures, looks_of
from warehouse.query.read_back import PrefixStart

SPACE = CoordinateSpace.qwen3_vl()
FRAME = Frame.of(SPACE, QUESTION)
ZOOM = ZoomConfig(Lens(50, 100), max_calls=2, max_turns=3)


def asking(samples: int = 1, **changed: object) -> SearchConfig:
    return SearchConfig(SPACE, samples=samples, **changed)  # type: ignore[arg-type]


# ---- answers ------------------------------------------------------------------------------------


async def test_an_answer_is_a_request_with_its_thoughts_and_what_was_wrong() -> None:
    texts = {
        ("", "chain", 0): "<think>A box (5, 5).</think><answer>left</answer>",
        ("", "chain", 1): ("<think>A box (5, 5)", "length"),
    }
    policy = ScriptedPolicy(texts)
    whole, cut = await sample_answers(policy, FRAME, asking(2))
    assert policy.log == [("", "chain", 2, 0)]
    assert (whole.answer, whole.finish_reason, len(whole.steps)) == ("left", "stop", 1)
    assert whole.response == texts["", "chain", 0] and whole.problems == ()
    assert (cut.answer, cut.finish_reason) == (None, "length") and cut.problems
    assert not cut.steps, "a thought that was cut off is none, as in a search"


async def test_an_answer_goes_on_from_the_steps_it_was_given() -> None:
    before = (Step("A lamp (9, 9).", (Point(9, 9),)),)
    prefix = PrefixStart("a tree", 3, before, None, None)
    policy = ScriptedPolicy(
        {(prefix.name, "chain", 0): "<think>So left.</think><answer>left</answer>"}
    )
    (found,) = await sample_answers(policy, FRAME, asking(), prefix)
    assert [step.thought for step in found.steps] == ["A lamp (9, 9).\nSo left."]
    assert found.answer == "left", "and a remark behind the last step belongs to it"
    cut = ScriptedPolicy({(prefix.name, "chain", 0): "<think>So left.</think>"})
    (found,) = await sample_answers(cut, FRAME, asking(), prefix)
    assert [step.thought for step in found.steps] == ["A lamp (9, 9).", "So left."]
    remarked = PrefixStart("a tree", 4, (*before, Step("I know.")), None, None)
    bare = ScriptedPolicy({(remarked.name, "chain", 0): "<answer>left</answer>"})
    (found,) = await sample_answers(bare, FRAME, asking(), remarked)
    assert found.steps == remarked.steps, "a prefix's own steps stay as they are"


async def test_an_empty_reply_answers_nothing_and_any_other_failure_is_told() -> None:
    empty = ScriptedPolicy({}, lambda *_: TeacherError("empty", "no text"))
    found = await sample_answers(empty, FRAME, asking(3))
    assert [(a.answer, a.response, a.steps, a.finish_reason) for a in found] == [
        (None, "", (), "stop")
    ] * 3
    gone = ScriptedPolicy({}, lambda *_: TeacherError("timeout", "gone"))
    with pytest.raises(TeacherError, match="gone"):
        await sample_answers(gone, FRAME, asking())


async def test_samples_that_a_server_left_out_are_asked_for() -> None:
    class Short(ScriptedPolicy):
        """Its server gives two at most."""

        async def sample(self, node, purpose, steps, n, first=0):  # type: ignore[no-untyped-def]
            self.log.append((n, first))
            return [Continuation(f"<answer>{first + i}</answer>", "stop", "") for i in range(n)][:2]

    policy = Short({})
    answers = await sample_answers(policy, FRAME, asking(5))
    assert [answer.answer for answer in answers] == ["0", "1", "2", "3", "4"]
    assert policy.log == [(5, 0), (3, 2), (1, 4)]


async def test_an_empty_reply_to_what_was_left_out_loses_no_other_sample() -> None:
    class Empty(ScriptedPolicy):
        """Its server gives two, and nothing more."""

        async def sample(self, node, purpose, steps, n, first=0):  # type: ignore[no-untyped-def]
            if first:
                raise TeacherError("empty", "nothing was written")
            return [Continuation(f"<answer>{i}</answer>", "stop", "") for i in range(2)]

    answers = await sample_answers(Empty({}), FRAME, asking(3))
    assert [answer.answer for answer in answers] == ["0", "1", None]


async def test_an_answer_that_zooms_is_all_its_turns() -> None:
    script = {
        ("", "chain", 0): look(100, 100),
        ("", "chain", 1): tell("It is left.", "left"),
        ("", "turn", 1): ("<think>It shows a 7.</think><answer>right</answer>", "stop"),
    }
    first, second = await sample_answers(ScriptedPolicy(script), FRAME, asking(2, zoom=ZOOM))
    assert first.response == f"{look(100, 100)}\n{script['', 'turn', 1][0]}"
    assert (first.answer, second.answer, len(first.steps)) == ("right", "left", 2)
    for kind, raises in (("timeout", True), ("empty", False)):
        lost = {**script, ("", "turn", 1): TeacherError(kind, "gone")}
        asked = sample_answers(ScriptedPolicy(lost), FRAME, asking(1, zoom=ZOOM))
        if raises:
            with pytest.raises(TeacherError, match="gone"):
                await asked
        else:
            assert [a.answer for a in await asked] == [None]


async def test_steps_of_an_answer_that_zooms_are_limited() -> None:
    script = {("", "chain", 0): look(100, 100), ("", "finish", 0): "left</answer>"}
    (found,) = await sample_answers(ScriptedPolicy(script), FRAME, asking(zoom=ZOOM, max_depth=1))
    assert (found.answer, len(found.steps), found.problems) == ("left", 1, ("answer_forced",))


def record(name: str, purpose: str, kind: str | None, node: str = "", sample: int = 0) -> Record:
    failure = Failure(kind, "it failed") if kind else None
    return Record(Key(name, node, purpose, sample), "f", (), failure, 0, None, 0, 0.0, 0.0)


async def test_only_what_failed_before_is_asked_again_and_under_another_name(
    tmp_path: Path,
) -> None:
    made: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name
            made.append(name)

        async def sample(self, *_: object) -> list[Continuation]:
            return [Continuation(self.name, "stop", "")]

    async def name_of(policy: AskedAgain, *key: object) -> str:
        node, purpose, first = key
        (found,) = await policy.sample(node, purpose, (), 1, first)  # type: ignore[arg-type]
        return found.text

    with Journal(tmp_path) as journal:
        await journal.append(record("a", "chain", "timeout"))
        await journal.append(record("a", "turn", "empty"))
        await journal.append(record("a", "finish", None))
        policy = AskedAgain("a", journal, Named)
        assert await name_of(policy, "", "turn", 0) == "a", "an empty reply is an answer"
        assert await name_of(policy, "", "finish", 0) == "a"
        assert await name_of(policy, "1", "chain", 0) == "a"
        assert await name_of(policy, "", "chain", 1) == "a"
        second = await name_of(policy, "", "chain", 0)
        assert second != "a" and policy.names == ["a", second] and made == ["a", second]
        await journal.append(record(second, "chain", "timeout"))
        assert await name_of(policy, "", "chain", 0) == second, "not twice in one run"
        again = AskedAgain("a", journal, Named)
        third = await name_of(again, "", "chain", 0)
        assert again.names == ["a", second, third] and third not in ("a", second)


# ---- the ledger ---------------------------------------------------------------------------------


def looked(*crops: tuple[int, int] | None) -> tuple[Step, ...]:
    return tuple(
        Step("It.", (), ZoomCall(Point(1, 1)),
             Observation(None, 0, 0, problem="malformed") if at is None
             else Observation(Box(*at, at[0] + 10, at[1] + 10), 9, 9))
        for at in crops
    )  # fmt: skip


def test_looks_are_counted_by_what_they_brought() -> None:
    steps = (*looked((0, 0), (1, 1), (90, 90), None), Step("So left."))
    found = looks_of(
        prediction("q", "left", steps=steps, shows_asked=(True, False, None, None, None),
                   problems=("answer_forced",))
    )  # fmt: skip
    assert (found.calls, found.crops, found.places) == (4, 3, 2)
    assert (found.known, found.on_asked, found.forced) == (2, 1, True)
    plain = looks_of(prediction("q", "left", problems=("unclosed_answer",)))
    assert (plain.calls, plain.crops, plain.forced) == (0, 0, False)


def test_figures_are_means_over_samples_and_shares_over_what_there_was() -> None:
    one = prediction("q", "left", steps=looked((0, 0), (50, 50), None), shows_asked=(True, False))
    two = prediction("q", "left", 1, problems=("answer_forced",))
    assert figures([one, two]) == {
        "calls": 1.5, "places": 1.0, "looked": 0.5, "forced": 0.5, "failed_calls": 1 / 3,
        "on_asked": 0.5,
    }  # fmt: skip
    assert set(figures([two])) == {"calls", "places", "looked", "forced"}
    failed = prediction("q", "left", steps=looked(None))
    assert figures([failed])["looked"] == 0 and figures([failed])["failed_calls"] == 1


# ---- controls -----------------------------------------------------------------------------------


def png(width: int, height: int, colour: object = "red") -> bytes:
    data = io.BytesIO()
    PILImage.new("RGB", (width, height), colour).save(data, "PNG")  # type: ignore[arg-type]
    return data.getvalue()


def about(name: str, *sizes: tuple[int, int]) -> Question:
    images = tuple(Image(f"{name}{i}", *size) for i, size in enumerate(sizes))
    return Question("t", name, images, AnswerKind.TEXT, answers=("a",))


def test_a_blank_image_is_grey_and_as_large() -> None:
    shown = control_images([], "blank", 0, lambda name: b"")(about("a", (8, 6), (5, 9)))
    pictures = [PILImage.open(io.BytesIO(data)) for data in shown]
    assert [p.size for p in pictures] == [(8, 6), (5, 9)]
    assert all(p.getcolors() == [(p.width * p.height, (128, 128, 128))] for p in pictures)
    with pytest.raises(
        ValueError, match="one of blank, shuffled, noise, elsewhere, gold, not 'black'"
    ):
        control_images([], "black", 0, lambda name: b"")


def test_a_shuffled_image_is_anothers_in_the_size_of_its_own() -> None:
    asked = [about("a", (8, 6)), about("b", (10, 10), (4, 4)), about("c", (7, 7), (9, 9), (3, 3))]
    stored = {
        image.image_id: png(image.width, image.height, (i * 40, j * 50, 9))
        for i, question in enumerate(asked)
        for j, image in enumerate(question.images)
    }
    shown = control_images(asked, "shuffled", 0, stored.__getitem__)
    donors = image_donors(asked, 0)
    for question in asked:
        given = [PILImage.open(io.BytesIO(data)) for data in shown(question)]
        assert [p.size for p in given] == [(i.width, i.height) for i in question.images]
        others = donors[question.question_id].images
        for i, picture in enumerate(given):
            source = decode(stored[others[i % len(others)].image_id])
            assert picture.convert("RGB").getpixel((0, 0)) == source.getpixel((0, 0))
    alone = control_images(asked[:1], "shuffled", 0, stored.__getitem__)(asked[0])
    assert decode(alone[0]).getpixel((0, 0)) == (128, 128, 128), "nobody else has one"


def test_images_are_a_questions_own_or_anothers_to_the_byte() -> None:
    asked = [about("a", (8, 6)), about("b", (8, 6))]
    stored = {"a0": png(8, 6, "red"), "b0": png(8, 6, "blue")}
    for control in (None, "noise", "elsewhere"):
        assert control_images(asked, control, 0, stored.__getitem__)(asked[0]) == [stored["a0"]]
    shuffled = control_images(asked, "shuffled", 0, stored.__getitem__)
    assert shuffled(asked[0]) == [stored["b0"]], "of its size already"
    for replace_images in (with_images, lambda *given: with_crops(*given, "noise")):
        with pytest.raises(ValueError, match=r"shorter|longer"):
            replace_images(asked[0], [])


def test_a_donor_of_the_same_size_is_preferred_and_none_is_shared() -> None:
    asked = [about(str(i), (8, 6) if i % 5 else (9, 9)) for i in range(20)]
    donors = image_donors(asked, 3)
    sizes = {q.question_id: (q.images[0].width, q.images[0].height) for q in asked}
    assert all(sizes[name] == sizes[donor.question_id] for name, donor in donors.items())
    assert all(name != donor.question_id for name, donor in donors.items())
    assert donors == image_donors(asked[::-1], 3) != image_donors(asked, 4)
    shared = [replace(about("x", (8, 6)), text=str(i)) for i in range(3)]
    assert image_donors(shared, 0) == {}, "all are about one image"


def test_what_a_control_shows_has_another_name() -> None:
    question, images = about("a", (8, 6)), [png(8, 6)]
    shown, by_id = with_images(question, images)
    assert [by_id[image.image_id] for image in shown.images] == images
    assert shown.images[0].image_id != "a0" and shown.images[0].width == 8
    names = {with_crops(question, images, c)[0].images[0].image_id for c in ("noise", "elsewhere")}
    assert len(names | {shown.images[0].image_id}) == 3


def test_noise_is_the_same_for_the_same_crop_and_covers_all_of_it() -> None:
    data, crop = png(100, 80), Observation(Box(10, 10, 30, 30), 40, 20)
    noise = noise_crop(data, crop)
    assert noise == noise_crop(data, crop) != noise_crop(data, replace(crop, width=41))
    assert noise != noise_crop(png(100, 80, "blue"), crop)
    shown = decode(noise)
    assert shown.size == (40, 20)
    levels = Counter(shown.tobytes())
    assert len(levels) > 240, "every level of grey and colour"


def test_a_region_elsewhere_is_as_large_unmarked_and_apart() -> None:
    for shade in range(8):  # each picture has other regions drawn
        picture = PILImage.new("RGB", (200, 100), (shade, 0, 255))
        picture.paste("red", (70, 0, 130, 60))
        data = io.BytesIO()
        picture.save(data, "PNG")
        crop = Observation(Box(70, 0, 130, 60), 60, 60, marked=True)
        other = decode(crop_elsewhere(data.getvalue(), crop, ZoomCall(Point(100, 30))))
        assert other.size == (60, 60)
        assert max(other.tobytes()[::3]) < 100, "none of what was asked for, nor a red dot"
    whole = Observation(Box(0, 0, 200, 100), 20, 10)
    assert decode(crop_elsewhere(data.getvalue(), whole)).size == (20, 10)
