"""The checks before a training find what is planted, and change nothing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from flows.cli import app as cli
from tests.support.trained import sft, warehouse_with_traces
from training import preflight
from training.errors import TrainingError
from training.examples import Examples, sft_examples
from training.run_training import prepare_student
from training.runs import Plan, open_run
from training.sft import train_sft
from training.students import Student, load_model, open_student, read_control_tokens
from training.trainers import TrainingReporter, sft_trainer
from vigorl_nano import BASE
from warehouse.models import list_models
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import open_version, resolve


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_with_traces(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def ready(made: Warehouse) -> tuple[Student, Examples, Any, Any]:
    """A student, its examples, its processor, and a trainer that has not begun."""
    version, recipe = resolve(made, "kept"), sft("steps=1")
    with open_student(made, "nano-base") as found, open_version(made, version) as folder:
        student = prepare_student(found, recipe)
        examples = sft_examples(made, folder, version.ref, student, 3)
        model, processor = load_model(student)
        plan = Plan("sft", recipe.settings(), version.ref, "preflight", found.model_id)
        with open_run(made, plan) as run:
            trainer = sft_trainer(run, recipe, model, processor, examples, TrainingReporter())
        return student, examples, processor, trainer


def changed(examples: Examples, **fields: Any) -> Examples:
    """The rows with the last one's fields replaced."""
    return replace(examples, rows=[*examples.rows[:-1], {**examples.rows[-1], **fields}])


def test_good_rows_pass_and_their_longest_is_reported(ready: Any) -> None:
    student, examples, processor, _ = ready
    messages = preflight.check_rows(examples, student, processor, 4096)
    assert messages.startswith(f"{len(examples.rows)} rows and ")


def test_a_text_with_a_place_for_a_picture_too_many_is_found(ready: Any) -> None:
    student, examples, processor, _ = ready
    messages = [dict(message) for message in examples.rows[-1]["messages"]]
    messages[0]["content"] += " <|image_pad|>"
    with pytest.raises(TrainingError, match=rf"row {len(examples.rows)} .*places for"):
        preflight.check_rows(changed(examples, messages=messages), student, processor, None)


def test_a_picture_of_another_size_is_found(ready: Any) -> None:
    student, examples, processor, _ = ready
    wrong = changed(examples, image_sizes=[[9, 9] for _ in examples.rows[-1]["image_ids"]])
    with pytest.raises(TrainingError, match=r"not \(9, 9\)"):
        preflight.check_rows(wrong, student, processor, None)


def test_a_picture_that_does_not_open_is_found(ready: Any) -> None:
    student, examples, processor, _ = ready
    broken = replace(examples, read_image=lambda image_id: b"no picture")
    with pytest.raises(TrainingError, match="can't be opened"):
        preflight.check_rows(broken, student, processor, None)


def test_nothing_is_cut_off_a_row_that_is_too_long_is_refused(ready: Any) -> None:
    student, examples, processor, _ = ready
    with pytest.raises(TrainingError, match="more than 60; nothing is cut off"):
        preflight.check_rows(examples, student, processor, 60)


def test_a_processor_that_writes_other_picture_tokens_is_found(ready: Any) -> None:
    student, examples, processor, _ = ready
    images = processor.image_processor
    images.merge_size = 1  # the text then gets four times as many
    try:
        with pytest.raises(TrainingError, match=r"writes 196 image tokens .* expects 49"):
            preflight.check_rows(examples, student, processor, None)
    finally:
        images.merge_size = 2


def test_one_batch_overfits_and_the_weights_are_put_back(ready: Any) -> None:
    _, examples, _, trainer = ready
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert preflight.check_overfit(trainer, examples).startswith("one batch overfits: loss ")
    after = trainer.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_weights_that_the_loss_does_not_reach_are_found(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, examples, _, trainer = ready
    monkeypatch.setattr(preflight, "OVERFIT_STEPS", 5)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    for weight in trained[1:]:
        weight.requires_grad_(False)
    still = trained[0].register_hook(torch.zeros_like)
    try:
        with pytest.raises(TrainingError, match="can't be overfitted"):
            preflight.check_overfit(trainer, examples)
        trained[0].requires_grad_(False)
        with pytest.raises(TrainingError, match="every weight is frozen"):
            preflight.check_overfit(trainer, examples)
    finally:
        still.remove()
        for weight in trained:
            weight.requires_grad_(True)


def test_a_loss_that_is_no_number_is_found(ready: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, examples, _, trainer = ready
    lost = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr(trainer, "compute_loss", lambda model, batch: lost)
    with pytest.raises(TrainingError, match="loss of the first batch is not a number"):
        preflight.check_overfit(trainer, examples)


def test_a_batch_of_which_nothing_is_learned_is_found(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, examples, _, trainer = ready
    batch = {"labels": torch.full((2, 3), -100)}
    monkeypatch.setattr(preflight.trainers, "prepare_batch", lambda trainer, rows: batch)
    with pytest.raises(TrainingError, match="marks no assistant tokens"):
        preflight.check_overfit(trainer, examples)


WHOLE = "show(message.content) -%}"
SHORT = "show(message.content).split('</think>')[-1].lstrip('\\n') -%}"


def test_s06_a_template_that_drops_thoughts_stops_every_training_before_the_first_step(
    made: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    copy = shutil.copytree(BASE, tmp_path / "copy")
    file = copy / "chat_template.jinja"
    assert f"set text = {WHOLE}" in file.read_text()
    file.write_text(file.read_text().replace(f"set text = {WHOLE}", f"set text = {SHORT}"))
    monkeypatch.setenv("VIGORL_HOME", made.root)
    for arguments in (
        ("sft", "nano-sft", "--dataset", "kept", "--preflight"),
        ("sft", "nano-sft", "--dataset", "kept"),
        ("dpo", "nano-dpo", "--dataset", "kept", "--preflight"),
        ("grpo", "nano-grpo", "--dataset", "kept", "--preflight", "-o", "questions=1"),
    ):
        monkeypatch.setattr("sys.argv", ["vigorl", "train", *arguments, "--model", str(copy)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert left.value.code == 2, said
        assert "row 1 (" in said and "thought 1 of " in said
        assert "response_style: answer_only" in said
    assert not list_models(made)


def test_rows_that_spell_a_control_token_are_left_out_and_counted(
    made: Warehouse, ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, examples, _, _ = ready
    assert "<|im_end|>" in read_control_tokens(student)
    spelled = examples.rows[0]["messages"][-1]["content"].splitlines()[0]
    having = [r for r in examples.rows if any(spelled in m["content"] for m in r["messages"])]
    monkeypatch.setattr("training.examples.read_control_tokens", lambda student: (spelled,))
    version = resolve(made, "kept")
    with open_version(made, version) as folder:
        if len(having) == len(examples.rows):
            pytest.fail("the traces of this warehouse are all alike")
        fewer = sft_examples(made, folder, version.ref, student, 3)
    assert len(fewer.rows) == len(examples.rows) - len(having) and len(having) >= 1
    reason = f"whose text spells {spelled}, a control token of this model"
    assert fewer.left_out == {**examples.left_out, reason: len(having)}


def test_checking_alone_trains_nothing(made: Warehouse) -> None:
    messages: list[str] = []
    assert (
        train_sft(
            made,
            sft("steps=2"),
            "kept",
            only_check=True,
            reporter=TrainingReporter(message=messages.append),
        )
        is None
    )
    assert any("overfits" in line for line in messages)
    assert not list_models(made)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_a_sampler_that_tells_its_log_probabilities_is_judged_by_them(temperature: float) -> None:
    trainer = SimpleNamespace(_image_pad_token_id=0, args=SimpleNamespace(temperature=temperature))
    drawn = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(40, 30, generator=drawn)
    logits[:, 0] = -torch.inf
    told = (logits / temperature).log_softmax(-1)
    tokens = torch.multinomial(told.exp(), 1, generator=drawn)[:, 0]
    exact = told.gather(-1, tokens[:, None])[:, 0].tolist()

    def compared(logprobs: list[float] | None) -> preflight._Comparison:
        found = preflight._Comparison(trainer)
        found.add(logits.clone(), tokens.tolist(), logprobs)
        return found

    compared(exact).check("they disagree")
    with pytest.raises(TrainingError, match=r"they disagree: log-probabilities differ by 0\.2"):
        compared([p - 0.2 for p in exact]).check("they disagree")
    with pytest.raises(TrainingError, match="of 40 greedy tokens"):
        compared(None).check("they disagree")
