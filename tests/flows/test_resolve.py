"""What a teacher's settings come to: how its servers are asked, and what a search knows of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flows.settings import BuildSettings, TeacherSettings
from flows.settings_base import FieldProblem, Problem
from flows.teachers.resolve import resolve, server_address
from flows.teachers.vllm_command import flags
from mcts.coordinates import CoordinateSpace
from mcts.teachers import openai_client
from mcts.teachers.base import TeacherUnavailable
from mcts.teachers.ensemble import Ensemble
from mcts.teachers.reconnect import ReconnectingTeacher
from mcts.teachers.replicas import Replicas


class Client:
    """A client that keeps how it was made."""

    def __init__(self, url: str, model: str | None, **how: Any) -> None:
        self.url, self.model, self.how = url, model, how


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_client, "OpenAITeacher", Client)
    for name in ("VIGORL_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def settings(teacher: str = "http://gpu:8000", **given: Any) -> TeacherSettings:
    return TeacherSettings.checked(**{"teacher": teacher, "space": "qwen2.5-vl", **given})


def test_a_server_is_asked_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_KEY", "sk-abcd")
    found = resolve(settings(
        "http://gpu:8000/v1/", model="m", concurrency=5, timeout=7.0, revision="r2",
        body=("effort=low",), headers=("x-team=v",), api_key_env="TEAM_KEY", min_pixels=6272,
        server_can="no-continue",
    ))  # fmt: skip
    asked: Any = found.teacher
    assert (asked.url, asked.model) == ("http://gpu:8000", "m")
    assert asked.how["access"].headers == {"Authorization": "Bearer sk-abcd", "x-team": "v"}
    wanted = {
        "concurrency": 20, "timeout_s": 7.0, "connect_retries": None, "revision": "r2",
        "fields": {"effort": "low"}, "image_cache_bytes": 2**28,
    }  # fmt: skip
    assert {name: asked.how[name] for name in wanted} == wanted
    assert asked.how["can"] is not None and asked.how["space"] == found.space
    most = CoordinateSpace.qwen25_vl().max_pixels
    assert (found.space.min_pixels, found.space.max_pixels) == (6272, most)
    assert found.bounded and found.zoom is None and found.observation_role == "user"


def test_a_server_of_which_nothing_is_said_is_found_out_about() -> None:
    asked: Any = resolve(settings()).teacher
    assert asked.how["can"] is None and asked.how["revision"] == "" and not asked.how["fields"]
    assert asked.how["access"].headers == {} and asked.model is None


def test_several_servers_share_what_one_would_hold() -> None:
    found: Any = resolve(settings("http://a:1, http://b:2")).teacher
    assert isinstance(found, Replicas)
    clients: Any = [replica.teacher for replica in found._replicas]
    assert [one.url for one in clients] == ["http://a:1", "http://b:2"]
    for one in clients:
        assert (one.how["connect_retries"], one.how["image_cache_bytes"]) == (1, 2**27)
    assert isinstance(resolve(settings(), reconnect=True).teacher, ReconnectingTeacher)


def test_models_that_are_asked_alike_are_one_teacher() -> None:
    found = resolve(settings("nano + nano-reader", space=None))
    alone = [resolve(settings(name, space=None)) for name in ("nano", "nano-reader")]
    assert found.teacher.identity == " + ".join(one.teacher.identity for one in alone)
    assert (found.space, found.style, found.bounded) == (alone[0].space, alone[0].style, False)
    served = resolve(settings("http://a:1 + http://b:1,http://c:1"), reconnect=True)
    assert isinstance(served.teacher, Ensemble) and served.bounded


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        ("nano + nano", "several models together are named once each"),
        ("nano + ", "several models together are named once each"),
        ("vllm:a + vllm-cpu:b", "a run starts one vLLM server"),
        ("nano + nano-zoom", "nano and nano-zoom can't search together: they point in different"),
        (
            "nano + http://u:secret@a:1",
            r"nano and http://.*a:1 can't search .*: they are asked",
        ),
        ("nano + nowhere", "'nowhere' is no registered model"),
    ],
)
def test_models_that_differ_in_how_they_are_asked_are_no_teacher(
    teacher: str, sentence: str
) -> None:
    space = "qwen3-vl" if "http" in teacher else None
    with pytest.raises(Problem, match=sentence) as told:
        resolve(settings(teacher, space=space))
    assert "secret" not in str(told.value)


def test_a_checkpoint_in_this_process_is_not_asked_to_count() -> None:
    found = resolve(TeacherSettings.checked(teacher="nano"))
    assert not found.bounded
    other = resolve(TeacherSettings.checked(teacher="nano", space="original"))
    assert other.space == CoordinateSpace.original() != found.space


def test_the_field_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def field(**given: Any) -> str:
        with pytest.raises(FieldProblem) as wrong:
            server_address(settings(**given), given.get("teacher", "http://gpu"))
        return wrong.value.field

    monkeypatch.setenv("TEAM_KEY", "sk-abcd")
    monkeypatch.delenv("GONE", raising=False)
    assert field(api_key_env="GONE") == "api_key_env"
    assert field(teacher="http://me:$GONE@gpu") == "teacher"
    assert field(teacher="http://me:word@gpu", api_key_env="TEAM_KEY") == "teacher"
    assert field(headers=("x-key=$GONE",)) == "headers"
    shown, access = server_address(settings(), "http://me:word@gpu")
    assert shown == "http://gpu" and access.headers["Authorization"].startswith("Basic ")


def test_a_limit_of_pixels_beyond_the_other_is_named() -> None:
    with pytest.raises(FieldProblem, match="min_pixels 3136 > max_pixels 1280") as wrong:
        resolve(settings(teacher="http://gpu", space="qwen2.5-vl", max_pixels=1280))
    assert wrong.value.field == "max_pixels"


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        ("", "no model is registered as the default"),
        ("no-such-model", "is no registered model"),
        ("http://a:1,b:2", "'b:2' among the servers is no URL"),
        ("http://a:1,http://a:1/v1", "each server is named once"),
    ],
)
def test_a_teacher_that_is_none_is_one_sentence(teacher: str, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence):
        resolve(settings().model_copy(update={"teacher": teacher}))


@pytest.mark.parametrize("teacher", ["vllm:some/model", "vllm:some/model + http://a:1", "served:x"])
def test_what_is_only_replayed_needs_no_vllm_no_server_and_no_key(
    teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGORL_VLLM", str(tmp_path / "nowhere"))
    given = settings(teacher, home=str(tmp_path), api_key_env="NOT_SET", max_pixels=50176)
    with pytest.raises(Problem):
        resolve(given)
    found = resolve(given, recorded=True)
    assert found.space.max_pixels == 50176 and found.bounded
    with pytest.raises(TeacherUnavailable, match="asks no teacher"):
        asyncio.run(found.teacher.open())


@pytest.mark.parametrize(("given", "shown", "images"), [(None, None, 12), (20, None, 28),
                                                        (20, 6, 14)])  # fmt: skip
def test_a_server_of_our_own_takes_every_crop_beside_a_questions_images(
    given: int | None, shown: int | None, images: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("VIGORL_VLLM", str(program))
    build = BuildSettings.checked(
        task="sat2", teacher="vllm-cpu:some/model", space="qwen3-vl", max_crops=given,
        home=str(tmp_path),
    )  # fmt: skip
    teacher: Any = resolve(build, crops=shown).teacher
    line = flags(teacher._server.settings, "m", 1)
    limit = line[line.index("--limit-mm-per-prompt") + 1]
    assert json.loads(limit) == {"image": images, "video": 0}
