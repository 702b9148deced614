"""What a command does where a field is left out, the least each takes, and what contradicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.dataset_settings import ExportSettings, PublishSettings
from flows.retrain_settings import InboxSettings, RetrainSettings
from flows.search_settings import ZoomSettings, parse_lens
from flows.settings import (
    AskSettings,
    BuildSettings,
    CurateSettings,
    DpoSettings,
    EvaluateSettings,
    GallerySettings,
    GrpoSettings,
    ImportSettings,
    JudgeSettings,
    LintSettings,
    PrmSettings,
    ServeSettings,
    SftSettings,
    TeacherSettings,
)
from flows.settings_base import Problem, Settings
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens

SERVER = {"timeout": 600.0, "headers": (), "body": (), "refusals": 8}
DEFAULTS: dict[type[Settings], dict[str, Any]] = {
    ImportSettings: {"task": "", "path": "", "boxes": "xyxy", "space": "original"},
    BuildSettings: {
        **SERVER, "concurrency": 32, "split": "train", "simulations": 8, "children": 3,
        "rollouts": 2, "max_depth": 10, "exploration": 2.0, "wave": 1, "strategy": "mcts",
        "temperature": 1.0, "top_p": 1.0, "seed": 0, "shard": 64, "only_new": False,
        "retry_failed": False, "replay": False, "regrade": False, "dry_run": False, "pilot": 4,
        "value_weight": 2.0, "value_rollouts": 0,
    },
    CurateSettings: {"dry_run": False},
    JudgeSettings: {
        **SERVER, "concurrency": 16, "what": "grounding", "samples": 8, "retry_failed": False,
    },
    EvaluateSettings: {
        **SERVER, "concurrency": 64, "temperature": 0.0, "top_p": 1.0, "samples": 1,
        "seed": 0,
    },
    PublishSettings: {"timeout": 600.0},
    ExportSettings: {"to": "trl", "files": "parquet", "public": False},
    GallerySettings: {"out": Path("gallery"), "limit": 500, "timeout": 600.0},
    LintSettings: {
        "reward": "grounded", "space": "qwen3-vl", "seed": 0, "one_block": False,
        "messages": False, "zoom": False,
    },
    AskSettings: {**SERVER, "choice": (), "n": 1, "seed": 0, "out": Path("ask.png")},
    ServeSettings: {
        "extra": (), "host": "127.0.0.1", "port": 8000, "tensor_parallel": 1, "data_parallel": 1,
        "images": 8, "seed": 0, "cpu": False, "timeout": 1800.0,
    },
    SftSettings: {"override": ()},
    DpoSettings: {"override": ()},
    PrmSettings: {"override": ()},
    GrpoSettings: {"override": (), "split": "train"},
    RetrainSettings: {
        "sft_recipe": "", "grpo_recipe": "", "start": "base", "replay": 0.5, "simulations": 8,
        "per_question": 6, "min_new_traces": 50, "at_most_every": 0.0,
        "gate_split": "gate", "alpha": 0.05, "minimum_gain": 0.01, "family_margin": 0.1,
        "ask_person": False, "sft_override": (), "grpo_override": (),
    },
    InboxSettings: {"task": "", "still": 5.0},
}  # fmt: skip
"""Every other field is empty, or has to be given."""
CHOSEN_AT_HAND = {"teacher"}
"""By what is registered."""


@pytest.mark.parametrize("model", DEFAULTS)
def test_a_field_left_out_means_what_it_always_did(model: type[Settings]) -> None:
    """`test_commands` holds the manual against these; here they are held against a typo."""
    found = {
        name: field.default
        for name, field in model.model_fields.items()
        if not field.is_required() and field.default is not None and name not in CHOSEN_AT_HAND
    }
    assert found | DEFAULTS[model] == found
    assert all(type(found[name]) is type(value) for name, value in DEFAULTS[model].items())


REQUIRED: dict[type[Settings], dict[str, Any]] = {
    BuildSettings: {"task": "t", "teacher": "x"},
    JudgeSettings: {"task": "t", "judge": "x", "teacher": "x"},
    EvaluateSettings: {"model": "m", "benchmark": "b"},
    ServeSettings: {"model": "m"},
    AskSettings: {"model": "m", "words": ("a.png", "?")},
    GrpoSettings: {"recipe": "r", "task": "t"},
    RetrainSettings: {"task": "t", "sft_recipe": "r"},
    PublishSettings: {"name": "n", "sql": "SELECT 1"},
}
FROM_ONE = {
    ImportSettings: "limit",
    BuildSettings: "max_crops max_turns crop_tokens min_pixels max_pixels concurrency limit "
    "simulations children rollouts max_depth wave enough tree_tokens tree_requests run_tokens "
    "run_requests step_tokens shard pilot metrics",
    JudgeSettings: "samples limit concurrency",
    EvaluateSettings: "limit samples min_thoughts concurrency",
    GallerySettings: "limit",
    AskSettings: "n",
    ServeSettings: "port tensor_parallel data_parallel context images min_pixels max_pixels",
    GrpoSettings: "limit",
    RetrainSettings: "simulations per_question min_new_traces run_tokens",
}
FROM_ZERO = {
    ImportSettings: "max_rejects",
    BuildSettings: "refusals exploration temperature seed value_weight value_rollouts",
    EvaluateSettings: "temperature seed",
    AskSettings: "seed temperature",
    ServeSettings: "seed",
    RetrainSettings: "replay at_most_every minimum_gain family_margin",
}
ABOVE_ZERO = {
    BuildSettings: "timeout tree_seconds run_seconds top_p",
    EvaluateSettings: "top_p",
    PublishSettings: "timeout",
    GallerySettings: "timeout",
    ServeSettings: "timeout",
    RetrainSettings: "alpha run_seconds run_hours",
    InboxSettings: "still",
}


@pytest.mark.parametrize(
    ("table", "least", "below"), [(FROM_ONE, 1, 0), (FROM_ZERO, 0, -1), (ABOVE_ZERO, 0.5, 0)]
)
def test_a_field_takes_its_least_value_and_nothing_below(
    table: dict[type[Settings], str], least: float, below: float
) -> None:
    for model, fields in table.items():
        for field in fields.split():
            given = REQUIRED.get(model, {})
            more: dict[str, object] = {"max_crops": 1} if field == "max_turns" else {}
            more |= {"value_model": "m"} if field.startswith("value_") else {}
            assert getattr(model.checked(**given | more | {field: least}), field) == least
            with pytest.raises(Problem, match=f"^{field}: Input should be greater than"):
                model.checked(**given | {field: below})


@pytest.mark.parametrize(
    ("model", "field", "most", "above"),
    [
        (BuildSettings, "top_p", 1, 1.1), (EvaluateSettings, "top_p", 1, 1.1),
        (BuildSettings, "metrics", 65535, 65536), (ServeSettings, "port", 65535, 65536),
        (RetrainSettings, "replay", 1, 1.1), (RetrainSettings, "alpha", 0.99, 1),
    ],
)  # fmt: skip
def test_a_field_takes_its_largest_value_and_nothing_above(
    model: type[Settings], field: str, most: float, above: float
) -> None:
    model.checked(**REQUIRED[model] | {field: most})
    with pytest.raises(Problem, match=f"^{field}: Input should be less than"):
        model.checked(**REQUIRED[model] | {field: above})


TRAINED = {"task": "t", "sft_recipe": "r"}


@pytest.mark.parametrize(
    ("model", "given", "sentence"),
    [
        (BuildSettings, {"samples": 3}, "samples: only for best-of-n, linear and auto"),
        (BuildSettings, {"widening": 0.5, "strategy": "linear"}, "widening: only for the strat"),
        (BuildSettings, {"distinct": True, "strategy": "best-of-n"}, "distinct: only for the s"),
        (BuildSettings, {"value_model": "m", "strategy": "linear"}, "value_model: only for the"),
        (BuildSettings, {"value_rollouts": 1}, "value_rollouts: only for builds with a value_mod"),
        (BuildSettings, {"value_weight": 0}, "value_weight: only for builds with a value_model"),
        (BuildSettings, {"value_rollouts": 1, "strategy": "best-of-n"}, "value_rollouts: only for"),
        (BuildSettings, {"replay": True, "dry_run": True}, "replay, regrade and dry_run: give one"),
        (BuildSettings, {"regrade": True, "dry_run": True}, "replay, regrade and dry_run: give o"),
        (BuildSettings, {"replay": True, "regrade": True}, "replay, regrade and dry_run: give one"),
        (BuildSettings, {"price_in": 1}, "price_in and price_out: give both, or neither"),
        (BuildSettings, {"price_out": 0}, "price_in and price_out: give both, or neither"),
        (BuildSettings, {"task": ""}, "task: "),
        (JudgeSettings, {"judge": None}, "judge: grounding needs a model that judges; give its U"),
        (EvaluateSettings, {"samples": 2}, "samples: at temperature 0 all are the same; give a "),
        (RetrainSettings, {"sft_recipe": ""}, "sft_recipe: a cycle trains: name a recipe of SFT"),
        *((RetrainSettings, {"gate_split": split}, f"gate_split: {split} is used for other things")
          for split in ("train", "test", "validation")),
    ],
)  # fmt: skip
def test_fields_that_contradict_each_other_are_refused(
    model: type[Settings], given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Problem) as caught:
        model.checked(**REQUIRED[model] | given)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("model", "given", "sentence"),
    [
        (CurateSettings, {"task": "t", "dry_run": True, "publish": "a"}, "dry_run and publish: gi"),
        (ExportSettings, {"dataset": "a"}, "--out: name a folder to write into, or a repository"),
        (GallerySettings, {"sql": "SELECT 1", "dropped_by": "a"}, "--sql and --dropped-by: give o"),
        (SftSettings, {"recipe": "r"}, "dataset: sft needs a dataset version, such as sat2-sft@v1"),
        (DpoSettings, {"recipe": "r"}, "dataset: dpo needs a dataset version, such as sat2-sft@v1"),
    ],
)
def test_either_of_two_alone_is_enough(
    model: type[Settings], given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Problem) as caught:
        model.checked(**given)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (BuildSettings, {"samples": 3, "strategy": "linear", "replay": True}),
        (BuildSettings, {"widening": 0.5, "distinct": True, "strategy": "auto"}),
        (BuildSettings, {"value_model": "m", "value_rollouts": 1, "value_weight": 0}),
        (BuildSettings, {"strategy": "best-of-n", "value_weight": 2.0, "value_rollouts": 0}),
        (BuildSettings, {"price_in": 0, "price_out": 0, "dry_run": True}),
        (JudgeSettings, {"judge": None, "what": "necessity"}),
        (EvaluateSettings, {"samples": 2, "temperature": 0.1}),
        (EvaluateSettings, {"prompt": "p"}),
        (EvaluateSettings, {"response_style": "answer_only"}),
        (RetrainSettings, {"sft_recipe": "", "grpo_recipe": "r"}),
    ],
)
def test_what_goes_together_is_taken(model: type[Settings], given: dict[str, Any]) -> None:
    model.checked(**REQUIRED[model] | given)


def test_each_alone_is_taken() -> None:
    CurateSettings.checked(task="t", dry_run=True)
    CurateSettings.checked(task="t", publish="A.b-1")
    for name in ("", "-a", "a b", "a/b"):
        with pytest.raises(Problem, match=r"^publish: "):
            CurateSettings.checked(task="t", publish=name)
    ExportSettings.checked(dataset="a", push_to="me/it")
    GallerySettings.checked(dropped_by="a")
    SftSettings.checked(recipe="r", dataset="a", name="a" * 100)
    for name in ("", "A", "-a", "a" * 101):
        with pytest.raises(Problem, match=r"^name: "):
            SftSettings.checked(recipe="r", dataset="a", name=name)


def test_the_part_about_a_teacher_is_taken_out_of_any_settings() -> None:
    asked = EvaluateSettings.checked(
        model="m", benchmark="b", served="s", space="qwen3-vl", timeout=7, seed=3
    )
    found = TeacherSettings.of(asked, teacher="t", model=asked.served, revision=None)
    assert found == TeacherSettings(
        teacher="t", model="s", space="qwen3-vl", timeout=7, concurrency=64
    )


def test_a_gates_policy_is_what_the_settings_say() -> None:
    given = {"alpha": 0.2, "minimum_gain": 0.3, "family_margin": 0.4, "ask_person": True}
    policy = RetrainSettings.checked(**TRAINED, **given).policy()
    assert (policy.alpha, policy.minimum, policy.family_margin, policy.ask_person) == (
        0.2, 0.3, 0.4, True
    )  # fmt: skip


# ---- zoom ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "lens"),
    [
        ("182:672", Lens(182, 672)),
        (" 100:512+dot ", Lens(100, 512, marked=True)),
        (".1:8192", Lens(0.1, 8192, share=True)),
        ("0.99:1", Lens(0.99, 1, share=True)),
        ("1:1", Lens(1, 1)),
        ("1.5:9", Lens(1.5, 9)),
    ],
)
def test_a_half_width_below_one_is_a_share(typed: str, lens: Lens) -> None:
    assert parse_lens(typed) == lens


@pytest.mark.parametrize("typed", ["1:8193", "1:0", "0:1", "0.0:1", "-1:5", "1:1:1", "", "1:1dot"])
def test_a_lens_that_is_none_is_refused(typed: str) -> None:
    with pytest.raises(Problem, match=r"^lens: "):
        ZoomSettings.checked(lens=typed)


def test_what_is_given_about_zoom_is_put_in_place_of_the_usual() -> None:
    usual = ZoomConfig(Lens(5, 6), 3, 7, role="tool", crop_tokens=8)

    def told(**given: Any) -> ZoomConfig:
        return ZoomSettings.checked(**given).zoom_config(usual)

    assert told() == usual
    assert told(max_crops=2) == ZoomConfig(Lens(5, 6), 2, 4, role="tool", crop_tokens=8)
    assert told(max_crops=2, max_turns=2).max_turns == 2
    assert told(max_turns=3).max_calls == 3, "as many turns as crops are enough"
    with pytest.raises(Problem, match="max_turns: 2 calls can't show 3 crops"):
        told(max_turns=2)
    every = {
        "lens": "1:2", "max_crops": 4, "max_turns": 9, "crop_tokens": 1,
        "zoom_tool": "image_zoom_in_tool", "observation_role": "user",
    }  # fmt: skip
    assert told(**every) == ZoomConfig(Lens(1, 2), 4, 9, "image_zoom_in_tool", "user", 1)
    names = [ZoomSettings.checked(**{name: value}).given_about_zoom()
             for name, value in every.items()]  # fmt: skip
    assert names == list(every) and ZoomSettings().given_about_zoom() is None
