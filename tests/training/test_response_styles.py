"""One response style by one name: published, exported, learned, rewarded and evaluated."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from flows.settings import EvaluateSettings
from flows.stages.evaluate import evaluate
from mcts.data import ResponseStyle
from mcts.teachers.checkpoints import prompt_style
from tests.support.trained import grpo, sft, warehouse_with_traces
from tests.warehouse.test_versions import KEPT
from training.errors import TrainingError
from training.examples import sft_examples
from training.grpo import reward_of
from training.recipes import load_recipe
from training.rewards.question_column import question_column
from training.rewards.rewards import PRESETS, make_rewards
from training.run_training import prepare_student
from training.students import open_student
from vigorl_nano import BASE
from warehouse.exports.export import export
from warehouse.storage.home import Warehouse
from warehouse.versions.bundle import question_of, read_rows
from warehouse.versions.versions import open_version, publish, resolve

TRAINED = [style for style in ResponseStyle if style is not ResponseStyle.ZOOM]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_with_traces(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("style", TRAINED)
def test_a_style_goes_from_a_version_into_training_rewards_and_evaluation(
    made: Warehouse, tmp_path: Path, style: ResponseStyle
) -> None:
    version = publish(made, style.replace("_", "-"), KEPT, response_style=style)
    assert resolve(made, version.ref).response_style is style
    with open_student(made, "nano-base") as start, open_version(made, version) as folder:
        student = prepare_student(start, sft(f"response_style={style}"))
        # Export and training rows are the same texts, whether the version has the style already.
        export(
            made, version, "trl", tmp_path / "out", space=student.space,
            prompt=student.prompt_style.prompt, files="jsonl",
        )  # fmt: skip
        assert json.loads((tmp_path / "out/export.json").read_text())["response_style"] == style
        lines = (tmp_path / "out/data/train").glob("*.jsonl")
        exported = [json.loads(line) for file in lines for line in file.read_text().splitlines()]
        learned = sft_examples(made, folder, version.ref, student, 3).rows
        texts = sorted(row["messages"][-1]["content"] for row in exported)
        assert texts == sorted(row["messages"][-1]["content"] for row in learned) != []
        with open_version(made, resolve(made, "kept")) as kept:
            others = sft_examples(made, kept, "kept", student, 3).rows
        assert {row["messages"][-1]["content"] for row in others} >= set(texts)
        # What is learned is well formed to the reward of the same style, and to no other.
        questions = {
            row["question_id"]: question_of(row) for row in read_rows(folder / "rows.parquet")
        }
        columns = {"question": [question_column(questions[r["question_id"]]) for r in learned]}
        completions = [row["messages"][-1]["content"] for row in learned]
        for name in TRAINED:
            spec = PRESETS[name]
            assert spec.response_style is name
            rewards = make_rewards(spec, student.space)
            form = rewards.functions[rewards.names.index("format")](
                completions, completions, **columns
            )
            # `format` of the grounded reward leaves the points to its part `grounding`.
            fits = name is style or (name, style) == ("grounded", "ungrounded")
            assert (sum(map(float, form)) > 0.5 * len(form)) is fits, (name, style)
    assert reward_of(grpo(f"response_style={style}", f"reward={style}")) is PRESETS[style]
    settings = EvaluateSettings.checked(
        model="nano-base", benchmark="sat2", split="train", limit=2, response_style=style,
        home=made.root,
    )  # fmt: skip
    report = asyncio.run(evaluate(settings)).report
    assert report.settings["prompt"] == student.prompt_style.prompt


def test_dialogues_that_zoom_are_left_out_of_other_styles(made: Warehouse, tmp_path: Path) -> None:
    version = publish(made, "zoom", KEPT, response_style=ResponseStyle.ZOOM)
    export(made, version, "trl", tmp_path / "out", files="jsonl")
    assert json.loads((tmp_path / "out/export.json").read_text())["response_style"] == "zoom"
    with (
        open_student(made, "nano-base") as student,
        open_version(made, version) as folder,
        pytest.raises(TrainingError, match=r"nothing to train on: .* zoom dialogues"),
    ):
        sft_examples(made, folder, version.ref, student, 3)
    assert load_recipe("nano-sft", ["response_style=zoom"]).response_style is ResponseStyle.ZOOM


def test_a_student_of_version_0_1_is_prompted_as_it_was_trained(tmp_path: Path) -> None:
    (tmp_path / "vigorl.json").write_text('{"manners": "nano", "form": "answers"}')
    style = prompt_style(tmp_path)
    assert style.response_style is ResponseStyle.ANSWER_ONLY
    assert style.prompt == prompt_style(BASE).with_response_style("answer_only").prompt
