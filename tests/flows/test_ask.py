"""`vigorl ask`: what it prints, what it draws, and what it says when it cannot."""

import re
import sys

import pytest
from PIL import Image

from flows.cli import app as cli
from flows.stages import ask as asking
from mcts.data import Point
from tests.support.fixtures import picture
from tests.support.stub_server import StubServer

QUESTION = "Is the red box left of the blue box?"


@pytest.fixture
def room(tmp_path):
    """A picture of 400 by 200 pixels."""
    path = tmp_path / "room.png"
    path.write_bytes(picture(3, (400, 200)))
    return path


@pytest.fixture
def server():
    with StubServer() as running:
        yield running


def ask(*arguments):
    """Run `vigorl ask` in this process; its status."""
    given, sys.argv = sys.argv, ["vigorl", "ask", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as left:
        return left.code or 0
    finally:
        sys.argv = given
    return 0


def test_steps_come_with_points_in_pixels_of_the_picture_and_a_drawing(
    room, server, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("VIGORL_HOME", str(tmp_path / "home"))
    out = tmp_path / "seen.png"
    options = ("--space", "qwen3-vl", "--choice", "yes", "--choice", "no", "--out", out)
    assert ask(server.url, room, QUESTION, *options) == 0
    *steps, answer, drawn = capsys.readouterr().out.splitlines()
    assert answer in ("answer: yes", "answer: no") and drawn == f"drawn: {out}"
    request = server.requests[0]["body"]
    content = server.answer(request)["choices"][0]["message"]["content"]
    spoken = [tuple(map(int, found)) for found in re.findall(r"\((\d+), (\d+)\)", content)]
    assert len(steps) == len(spoken) >= 3
    for i, (step, (x, y)) in enumerate(zip(steps, spoken, strict=True), 1):
        place = f"({x * 0.4:.0f}, {y * 0.2:.0f})"  # thousandths of 400 by 200 pixels
        assert step.startswith(f"{i}. [{place}] ") and step.count(place) == 2
    assert Image.open(out).width > 1000
    assert not (tmp_path / "home").exists()


def test_it_asks_what_a_build_asks_with_the_seed_and_the_samples_that_were_given(
    room, server, tmp_path, capsys
):
    options = ("--space", "qwen3-vl", "--n", 3, "--out", tmp_path / "a.png")
    assert ask(server.url, room, room, QUESTION, *options, "--seed", 4) == 0
    first = capsys.readouterr().out
    assert ask(server.url, room, room, QUESTION, *options, "--seed", 4) == 0
    assert capsys.readouterr().out == first
    assert ask(server.url, room, room, QUESTION, *options, "--seed", 5) == 0
    assert capsys.readouterr().out != first
    body = server.requests[0]["body"]
    assert (body["n"], body["temperature"]) == (3, 1.0)
    system, user = body["messages"]
    assert "thinking in short steps that point" in system["content"]
    assert [part["type"] for part in user["content"]] == ["image_url", "image_url", "text"]
    assert first.count("answer: ") == 3
    assert sorted(p.name for p in tmp_path.glob("a*.png")) == ["a-2.png", "a-3.png", "a.png"]
    assert ask(server.url, room, QUESTION, "--space", "qwen3-vl", "--out", tmp_path / "b.png") == 0
    body = server.requests[-1]["body"]
    assert (body["n"], body["temperature"]) == (1, 0.0)


def test_what_is_drawn_is_where_the_points_were_printed(room, server, tmp_path, monkeypatch):
    drawn = []

    def note(trace, question, images):
        drawn.append((trace, question, images))
        return b""

    monkeypatch.setattr(asking, "draw_trace", note)
    out = tmp_path / "seen.png"
    assert ask(server.url, room, QUESTION, "--space", "original", "--out", out) == 0
    trace, question, images = drawn[0]
    assert images == [room.read_bytes()]
    assert (question.images[0].width, question.images[0].height) == (400, 200)
    for step in trace.steps:
        x, y = re.findall(r"\d+", step.thought)
        assert step.point == Point(float(x), float(y))
    assert trace.reward is None


def test_a_model_that_zooms_is_shown_regions_that_are_printed_and_drawn(
    room, server, tmp_path, monkeypatch, capsys
):
    drawn, draw = [], asking.draw_trace
    monkeypatch.setattr(asking, "draw_trace", lambda *given: drawn.append(given[0]) or draw(*given))
    out, options = tmp_path / "seen.png", ("--space", "qwen3-vl", "--n", 4, "--choice", "yes")
    zoom = ("--response-style", "zoom", "--lens", "20:128", "--max-crops", 2)
    assert ask(server.url, room, QUESTION, *options, *zoom, "--out", out) == 0
    printed = capsys.readouterr().out
    looks = [s.observation for trace in drawn for s in trace.steps if s.observation]
    crops = [look.crop for look in looks if look.crop]
    assert len(drawn) == 4 and crops and {trace.kind for trace in drawn} == {"zoom"}
    for crop, view in [(look.crop, look.view) for look in looks if look.crop]:
        corners = f"({crop.x1:.0f}, {crop.y1:.0f}) to ({crop.x2:.0f}, {crop.y2:.0f})"
        assert f"   shown as image {view + 1}: {corners}, enlarged" in printed
        assert 0 <= crop.x1 < crop.x2 <= 400 and 0 <= crop.y1 < crop.y2 <= 200
    assert printed.count("   shown ") == len(looks)
    sizes = {(look.width, look.height) for look in looks if look.crop}
    assert (128, 128) in sizes and Image.open(out).width > 1000
    later = [r["body"]["messages"] for r in server.requests if len(r["body"]["messages"]) > 2]
    assert {messages[3]["role"] for messages in later} == {"user"}
    contents = [messages[3]["content"] for messages in later]
    kinds = [[part["type"] for part in content] for content in contents if type(content) is list]
    assert ["image_url", "text"] in kinds


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nowhere.png", QUESTION), "image nowhere.png: No such file or directory"),
        (("broken.png", QUESTION), "image broken.png can't be decoded"),
        (("room.png",), "QUESTION as the last argument"),
        (("room.png", "room.png"), "QUESTION as the last argument"),
        (("room.png", QUESTION, "--out", "picture.jpg"), "--out picture.jpg: name a .png file"),
        (("room.png", QUESTION, "--out", "no/such/a.png"), "--out no/such/a.png: name a .png file"),
        (("room.png", QUESTION, "--out", "room.png"), "one of the images asked about"),
        (
            ("seen-2.png", QUESTION, "--n", "2", "--out", "seen.png"),
            "seen-2.png is one of the images",
        ),
        (("room.png", QUESTION, "--n", "0"), "n: Input should be greater"),
        (("room.png", QUESTION, "--lens", "20"), "lens: '20' is not HALF_WIDTH:SHOWN_SIDE"),
        (("room.png", QUESTION, "--lens", "20:9"), "lens: the model answers grounded here"),
    ],
)
def test_bad_input_is_a_sentence_and_nothing_is_asked(
    arguments, sentence, room, server, monkeypatch, capsys
):
    monkeypatch.chdir(room.parent)
    (room.parent / "broken.png").write_bytes(room.read_bytes()[:90])
    (room.parent / "seen-2.png").write_bytes(room.read_bytes())
    before = sorted(room.parent.iterdir())
    assert ask(server.url, *arguments, "--space", "qwen3-vl") == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("vigorl: ") and said.err.count("\n") == 1
    assert sentence in said.err
    assert server.request_count() == 0 and sorted(room.parent.iterdir()) == before


def test_a_model_that_is_none_and_a_server_that_is_not_there_are_sentences(room, capsys):
    with StubServer() as stopped:
        pass
    assert ask("nonesuch", room, QUESTION) == 2
    assert "'nonesuch' is no registered model" in capsys.readouterr().err
    out = ("--out", room.with_name("out.png"))
    away = f"{stopped.url},{stopped.url}/x"  # two, which are given up sooner than one
    assert ask(away, room, QUESTION, "--space", "qwen3-vl", *out) == 1
    said = capsys.readouterr().err
    assert said.startswith("vigorl: None of http") and "answers" in said
    assert not room.with_name("out.png").exists()


def test_a_request_that_fails_is_a_sentence_and_draws_nothing(room, capsys):
    with StubServer(faults=["400"] * 20) as server:
        out = ("--out", room.with_name("out.png"))
        assert ask(server.url, room, QUESTION, "--space", "qwen3-vl", *out) == 1
    said = capsys.readouterr().err
    assert "the model could not answer" in said and "scripted 400" in said
    assert not room.with_name("out.png").exists()
