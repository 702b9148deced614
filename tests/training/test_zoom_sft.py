"""SFT on dialogues that zoom: what a row shows, what is learned, and what the student keeps."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PILImage

from curation.traces.zoom_dialogues import zoom_dialogue
from flows.settings import AskSettings
from flows.stages.ask import ask
from mcts.coordinates import Frame
from mcts.data import (
    AnswerKind,
    Image,
    Observation,
    Point,
    Question,
    ResponseStyle,
    Step,
    Trace,
    ZoomCall,
)
from mcts.prompts import build_messages, load_prompt
from mcts.teachers.base import Request
from mcts.teachers.local.checkpoint import Checkpoint
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import VISUAL_SEARCH_LENS, Lens
from mcts.zoom.recorded import record_zoom, recorded_zoom
from mcts.zoom.render import render_crop
from tests.support.trained import publish_dialogues, sft, warehouse_with_traces
from training import preflight
from training.batches.sft_batches import check_labels
from training.chat_templates import ChatTemplate
from training.errors import TrainingError
from training.examples import Examples, image_reader, sft_examples
from training.run_training import prepare_student
from training.runs import Plan, open_run
from training.sft import train_sft, zooming
from training.students import Student, load_model, open_student
from training.trainers import TrainingReporter, sft_trainer
from training.zoom_rows import DialogueProblem, Dialogues, shown_lens, with_zoom
from warehouse.models import open_model
from warehouse.storage.home import Warehouse
from warehouse.versions.bundle import question_of, read_rows, trace_of
from warehouse.versions.versions import open_version, resolve

ZOOM = "response_style=zoom"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Direct chains as `kept@v1`; the same as dialogues, twelve of them, as `looked@v1`."""
    warehouse = warehouse_with_traces(tmp_path_factory.mktemp("made"))
    publish_dialogues(warehouse)
    return warehouse


@pytest.fixture(scope="module")
def folder(made: Warehouse) -> Iterator[Path]:
    with open_version(made, resolve(made, "looked")) as opened:
        yield opened


@pytest.fixture(scope="module")
def student(made: Warehouse, folder: Path) -> Iterator[Student]:
    recipe = sft(ZOOM)
    with open_student(made, "nano-base") as found:
        yield zooming(prepare_student(found, recipe), recipe, folder)


@pytest.fixture(scope="module")
def examples(made: Warehouse, folder: Path, student: Student) -> Examples:
    return sft_examples(made, folder, "looked@v1", student, 3)


@pytest.fixture(scope="module")
def trainer(made: Warehouse, student: Student, examples: Examples) -> Any:
    recipe = sft(ZOOM, "steps=1")
    model, processor = load_model(student)
    with open_run(made, Plan("sft", recipe.settings(), "looked@v1", "zoom", "base")) as run:
        return sft_trainer(run, recipe, model, processor, examples, TrainingReporter())


def with_row(examples: Examples, **fields: Any) -> Examples:
    """The first row alone, with other fields."""
    return replace(examples, rows=[{**examples.rows[0], **fields}])


def learned(trainer: Any, examples: Examples) -> list[str]:
    """Each stretch of the first row that is trained on."""
    batch = trainer.data_collator([examples.dataset()[0]])
    texts, stretch = [], list[int]()
    for token, label in zip(
        batch["input_ids"][0].tolist(), batch["labels"][0].tolist(), strict=True
    ):
        assert label in (-100, token)
        if label != -100:
            stretch.append(token)
        elif stretch:
            texts.append(trainer.processing_class.tokenizer.decode(stretch))
            stretch = []
    return texts


# ---- rows ----------------------------------------------------------------------------------------

WHOLE = Image("a" * 64, 1000, 800)
QUESTION = Question("mine", "Which digit is it?", (WHOLE,), AnswerKind.TEXT, answers=("7",))


def looked(*points: tuple[float, float], lens: Lens = VISUAL_SEARCH_LENS) -> Trace:
    """A dialogue that looks at these places of QUESTION's image."""
    steps = [Step(f"A sign is at ({x}, {y}).", (Point(x, y),)) for x, y in points]
    direct = Trace(QUESTION.question_id, (*steps, Step("It is a 7.")), "7", 1.0, "direct")
    dialogue = zoom_dialogue(direct, QUESTION, lens, most_calls=len(points))
    assert dialogue is not None
    return dialogue


def test_a_row_shows_each_crop_behind_its_call_with_the_pixels_of_every_other_stage(
    folder: Path, examples: Examples
) -> None:
    stored = {row["trace_id"]: row for row in read_rows(folder / "rows.parquet")}
    whole = image_reader(folder)
    assert len(examples.rows) == 12
    for row in examples.rows:
        question = question_of(stored[row["trace_id"]])
        looks = [step for step in trace_of(stored[row["trace_id"]]).steps if step.observation]
        asked = len(question.images)
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["system", "user", *["assistant", "tool"] * len(looks), "assistant"]
        assert row["image_turns"] == [1] * asked + [3 + 2 * i for i in range(len(looks))]
        for i, step in enumerate(looks):
            assert step.observation is not None and step.observation.crop is not None
            text = row["messages"][3 + 2 * i]["content"]
            assert text.startswith(f"<observation>Image {asked + i + 1}: the region")
            image_id = question.images[step.observation.crop.image].image_id
            crop = examples.read_image(row["image_ids"][asked + i])
            assert crop == render_crop(whole(image_id), step.observation, step.call)
            size = PILImage.open(io.BytesIO(crop)).size
            assert list(size) == row["image_sizes"][asked + i]


def test_images_stand_in_their_turns_as_the_trainer_reads_them(examples: Examples) -> None:
    read = examples.dataset()[0]
    assert read["images"] == []  # TRL would put them all in front of the question
    row = examples.rows[0]
    held = [
        (i, part["image"].size)
        for i, message in enumerate(read["messages"])
        for part in message["content"]
        if part["type"] == "image"
    ]
    sizes = [tuple(size) for size in row["image_sizes"]]
    assert held == list(zip(row["image_turns"], sizes, strict=True))
    again = examples.dataset()[0]["messages"][3]["content"][0]["image"]
    assert again.tobytes() == read["messages"][3]["content"][0]["image"].tobytes()


def test_each_style_leaves_the_others_traces_out_and_says_how_many(
    made: Warehouse, folder: Path, student: Student, examples: Examples
) -> None:
    assert examples.left_out_text == "; 12 written without their crops in view"
    with open_student(made, "nano-base") as found:
        grounded = prepare_student(found, sft())
        with pytest.raises(TrainingError, match="nothing to train on: 12 zoom dialogues"):
            sft_examples(made, folder, "looked@v1", grounded, 3)
    with (
        open_version(made, resolve(made, "kept")) as kept,
        pytest.raises(
            TrainingError, match=r"nothing to train on: \d+ that never could look closer"
        ),
    ):
        sft_examples(made, kept, "kept@v1", student, 3)


def test_a_dialogue_that_the_student_would_be_shown_otherwise_is_left_out(student: Student) -> None:
    mine = replace(student, zoom=ZoomConfig(VISUAL_SEARCH_LENS, max_calls=2, role="tool"))
    dialogues = Dialogues(mine, 3)
    row = dialogues.row(QUESTION, looked((300, 300), (700, 500)))
    told = [message["content"] for message in row["messages"] if message["role"] == "tool"]
    assert [text.endswith("Now give your answer.</observation>") for text in told] == [False, True]
    with pytest.raises(DialogueProblem, match="more looks than `zoom` in the recipe allows"):
        dialogues.row(QUESTION, looked((300, 300), (700, 500), (500, 200)))
    for other in (Lens(100, 672), Lens(182, 512), Lens(182, 672, marked=True)):
        with pytest.raises(DialogueProblem, match="other crops than the student's own calls"):
            dialogues.row(QUESTION, looked((300, 300), lens=other))


def test_the_lens_is_read_off_the_crops(student: Student) -> None:
    small = Image("b" * 64, 400, 300)
    half = Trace("q", looked((300, 300)).steps, "7", 1.0, "zoom")
    assert shown_lens([(QUESTION, looked((300, 300), (10, 790)))]) == replace(
        VISUAL_SEARCH_LENS, half_width=0.182, share=True
    )
    # In pixels where images of several sizes are shown alike, or the task says it so.
    other = replace(QUESTION, images=(replace(WHOLE, width=2000),))
    assert shown_lens([(QUESTION, half), (other, half)]) == VISUAL_SEARCH_LENS
    assert shown_lens([(replace(QUESTION, task="vstar"), half)]) == VISUAL_SEARCH_LENS
    # A crop that is the whole image says nothing.
    whole = Observation(
        replace(half.steps[0].observation.crop, x1=0, y1=0, x2=400, y2=300), 672, 504
    )  # type: ignore[union-attr, type-var, arg-type]
    all_of_it = replace(half, steps=(replace(half.steps[0], observation=whole), half.steps[1]))
    seen = [(replace(QUESTION, images=(small,)), all_of_it), (QUESTION, half), (other, half)]
    assert shown_lens(seen) == VISUAL_SEARCH_LENS
    with pytest.raises(
        TrainingError, match=r"several lenses \(half widths in pixels: 182 shown at"
    ):
        shown_lens([(QUESTION, half), (QUESTION, looked((300, 300), lens=Lens(100, 512, True)))])


def test_a_recipe_chooses_among_lenses_and_a_model_keeps_its_limits(student: Student) -> None:
    named = "zoom.lens={half_width: 100, shown_side: 512, marked: true}"
    given = with_zoom(student, sft(ZOOM, named, "zoom.max_calls=2"), Lens(100, 512, True)).zoom
    assert given == ZoomConfig(Lens(100, 512, True), 2, 4, role="tool")
    taught = replace(student, zoom=ZoomConfig(VISUAL_SEARCH_LENS, 6, 9, role="user"))
    kept = with_zoom(taught, sft(ZOOM), Lens(50, 100)).zoom
    assert kept == ZoomConfig(Lens(50, 100), 6, 9, role="tool")


# ---- what is learned -----------------------------------------------------------------------------


def test_only_the_models_own_turns_are_learned_token_by_token(
    trainer: Any, examples: Examples
) -> None:
    texts = [m["content"] for m in examples.rows[0]["messages"] if m["role"] == "assistant"]
    assert learned(trainer, with_row(examples)) == [f"{text}<|im_end|>" for text in texts]
    template = ChatTemplate.of(trainer.processing_class)
    assert check_labels(trainer, examples, template).startswith("labels of 12 rows are right")


def test_a_call_that_failed_and_an_answer_that_was_forced_stay_in_sight_unlearned(
    trainer: Any, examples: Examples, student: Student
) -> None:
    look = looked((300, 300))
    bad = Step(
        "I look there.",
        (),
        ZoomCall(None, text="{not JSON"),
        Observation(None, 0, 0, problem="malformed"),
    )
    steps = (bad, *look.steps)
    mine = replace(student, zoom=ZoomConfig(VISUAL_SEARCH_LENS, role="tool"))
    dialogues = Dialogues(mine, 3)
    data = io.BytesIO()
    PILImage.new("RGB", (WHOLE.width, WHOLE.height), "red").save(data, "PNG")
    read = dialogues.reader(lambda image_id: data.getvalue())
    for problems, last in (((), 1), (("answer_forced",), 0)):
        row = dialogues.row(QUESTION, replace(look, steps=steps, problems=problems))
        said = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        assert "{not JSON" in said[0] and "can't be read" in row["messages"][3]["content"]
        one = Examples([row | {"trace_id": "t", "question_id": "q"}], read, {})
        assert learned(trainer, one) == [f"{text}<|im_end|>" for text in said[1 : 2 + last]]
        check_labels(trainer, one, ChatTemplate.of(trainer.processing_class))
    forced = replace(look, steps=(bad, look.steps[-1]), problems=("answer_forced",))
    with pytest.raises(DialogueProblem, match="of which no turn may be trained on"):
        dialogues.row(QUESTION, forced)


def test_labels_that_are_not_the_models_own_tokens_are_found(
    trainer: Any, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = ChatTemplate.of(trainer.processing_class)
    collate = trainer.data_collator

    def spoiled(change: Any) -> Any:
        def make(rows: list[Any]) -> Any:
            batch = collate(rows)
            change(batch["input_ids"][0], batch["labels"][0])
            return batch

        return make

    def observation(ids: torch.Tensor, labels: torch.Tensor) -> None:
        pads = ids == trainer.processing_class.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        last = int(pads.nonzero()[-1]) - 20  # in the middle of the last crop
        labels[last] = ids[last]

    def told(ids: torch.Tensor, labels: torch.Tensor) -> None:
        last = int((labels != -100).nonzero()[-1])
        while labels[last] != -100:
            last -= 1
        labels[last - 8] = ids[last - 8]  # of the observation before the answer

    def role(ids: torch.Tensor, labels: torch.Tensor) -> None:
        begin = int((labels != -100).nonzero()[0])
        labels[begin - 1] = ids[begin - 1]

    def dropped(ids: torch.Tensor, labels: torch.Tensor) -> None:
        labels[(labels != -100).nonzero()[-1]] = -100

    cases = [(observation, "would be trained on"), (told, "would be trained on"),
             (role, "would be trained on"), (dropped, "would not be trained on")]  # fmt: skip
    for change, said in cases:
        monkeypatch.setattr(trainer, "data_collator", spoiled(change))
        with pytest.raises(TrainingError, match=f"row 1 .*{said}"):
            check_labels(trainer, with_row(examples), template)


def test_the_student_is_asked_each_turn_as_it_was_taught(
    folder: Path, trainer: Any, examples: Examples, student: Student
) -> None:
    """The tokens and images of a search's or an evaluation's request are those of the row."""
    row = examples.rows[0]
    batch = trainer.data_collator([examples.dataset()[0]])
    ids = batch["input_ids"][0].tolist()
    stored = next(r for r in read_rows(folder / "rows.parquet") if r["trace_id"] == row["trace_id"])
    question, steps = question_of(stored), trace_of(stored).steps
    dialogues = Dialogues(student, 3)
    dialogues.row(question, trace_of(stored))
    shown = dialogues.as_shown(Frame.of(student.space, question), steps)
    images = {image_id: examples.read_image(image_id) for image_id in row["image_ids"]}
    model = Checkpoint.load(student.folder, "cpu", 4)
    for end in range(len(steps)):
        messages = build_messages(
            load_prompt("zoom"), question, student.space, 3, shown[:end], zoom=student.zoom
        )
        prompt = model.prompt(Request(messages, 1, 0.0, 1.0, 9, (), 0), images)
        pad = model.model.config.image_token_id
        pairs = zip(prompt.names, prompt.visual.tolist(), strict=True)
        asked = [pad if visual else token for token, visual in pairs]
        assert asked == ids[: len(asked)]
    features = trainer.model.model.get_image_features(
        batch["pixel_values"], batch["image_grid_thw"]
    ).pooler_output
    assert torch.allclose(torch.cat(list(features)), prompt.embeds[prompt.visual], atol=1e-4)


def test_a_batch_that_lost_an_image_is_refused(trainer: Any, examples: Examples) -> None:
    read = [examples.dataset()[0], examples.dataset()[1]]
    assert trainer.data_collator(read)["image_grid_thw"].shape[0] == sum(
        len(row["image_ids"]) for row in examples.rows[:2]
    )
    turns = read[0]["messages"]
    crop = turns[3]["content"][0]
    without = [*turns[:3], {**turns[3], "content": turns[3]["content"][1:]}, *turns[4:]]
    with pytest.raises(TrainingError, match=r"of \d+ images of trace .* the processor lost some"):
        trainer.data_collator([{**read[0], "messages": without}, read[1]])
    # As many images in the batch, but one in another row than the rows say.
    more = {**turns[3], "content": [crop, *turns[3]["content"]]}
    moved = {**read[1], "messages": [*read[1]["messages"][:3], more, *read[1]["messages"][4:]]}
    with pytest.raises(TrainingError, match=r"images have \d+ tokens and \d+ places"):
        trainer.data_collator([{**read[0], "messages": without}, moved])


def test_a_dialogue_that_is_too_long_is_refused_with_what_helps(
    trainer: Any, examples: Examples, student: Student
) -> None:
    processor = trainer.processing_class
    told = preflight.check_rows(examples, student, processor, None)
    assert told.startswith("12 rows and ")
    with pytest.raises(TrainingError, match=r"row 1 .* tokens, more than 300; .* `zoom.max_calls`"):
        preflight.check_rows(examples, student, processor, 300)


# ---- the whole training --------------------------------------------------------------------------


def test_a_student_is_trained_on_dialogues_and_asked_as_it_was_taught(
    made: Warehouse, folder: Path, student: Student, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    told: list[str] = []
    recipe = sft(ZOOM, "model=nano-zoom", "steps=2", "batch=2", "micro_batch=2", "trackers=[]")
    row = train_sft(made, recipe, "looked", reporter=TrainingReporter(message=told.append))
    assert row is not None
    assert any("12 written without their crops in view" in line for line in told)
    assert any("token by token" in line for line in told)
    with open_model(made, row) as model:
        said = json.loads((model / "vigorl.json").read_text())
        assert (said["response_style"], said["prompts"]["zoom"]) == ("zoom", "nano-zoom")
        assert recorded_zoom(model) == student.zoom
        PILImage.new("RGB", (400, 300), "red").save(tmp_path / "a.png")
        words = [str(tmp_path / "a.png"), "What is it?"]
        ask(AskSettings.checked(model=str(model), words=words, out=tmp_path / "drawn.png"))
        assert "answer: " in capsys.readouterr().out
    with open_student(made, row["name"]) as found:
        assert found.zoom == student.zoom
        assert found.prompt_style.response_style is ResponseStyle.ZOOM
        again = zooming(prepare_student(found, recipe), recipe, folder)
        assert len(sft_examples(made, folder, "looked@v1", again, 3).rows) == 12


def test_what_is_recorded_wrongly_is_named(tmp_path: Path) -> None:
    assert recorded_zoom(tmp_path) is None
    record_zoom(tmp_path, ZoomConfig(VISUAL_SEARCH_LENS))
    path = tmp_path / "vigorl.json"
    path.write_text(path.read_text().replace("half_width", "width"))
    with pytest.raises(ValueError, match=r"vigorl\.json, zoom: "):
        recorded_zoom(tmp_path)
