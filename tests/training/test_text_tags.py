"""Tags that a tokenizer has as single tokens its model was never trained on: told, and avoided.

Qwen3-VL Instruct is one such model. Its chat template comes with TRL; the embedded model stands in
for the rest, with a tokenizer that has the tags as added tokens, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trl
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoTokenizer

from tests.support.trained import sft, warehouse_with_traces
from training.chat_templates import unknown_tags
from training.errors import TrainingError
from training.run_training import open_start
from training.sft import train_sft
from training.students import Student, load_model, open_student, with_text_tags
from training.trainers import TrainingReporter
from vigorl_nano import BASE
from warehouse.models import open_model
from warehouse.storage.home import Warehouse

TEMPLATE = Path(trl.__file__).parent / "chat_templates" / "qwen3_vl.jinja"
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<tool_call>", "</tool_call>")
TEXT = "<think>Left of it.</think>\n<answer>left</answer>"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_with_traces(tmp_path_factory.mktemp("made"))


@pytest.fixture
def instruct(tmp_path: Path) -> Path:
    """A checkpoint of the family that was never taught here."""
    folder = shutil.copytree(BASE, tmp_path / "instruct")
    (folder / "vigorl.json").unlink()
    shutil.copyfile(TEMPLATE, folder / "chat_template.jinja")
    return folder


@pytest.fixture
def student(warehouse: Warehouse, instruct: Path) -> Iterator[Student]:
    with open_student(warehouse, str(instruct)) as found:
        yield found


def test_tags_that_the_chat_template_never_writes_are_found(student: Student) -> None:
    _, processor = load_model(student)
    assert unknown_tags(processor, TAGS) == ["</answer>", "</think>", "<answer>", "<think>"]
    reasons = TEMPLATE.read_text("utf-8") + "{{- '<think>\n\n</think>' }}"
    processor.chat_template = reasons
    assert unknown_tags(processor, TAGS) == ["</answer>", "<answer>"]


def test_a_tag_becomes_pieces_of_text_and_every_other_token_keeps_its_id(student: Student) -> None:
    before = AutoTokenizer.from_pretrained(student.folder)
    with with_text_tags(student, ["think"]) as found:
        after = AutoTokenizer.from_pretrained(found.folder)
        assert load_model(found)[0].config.model_type == "qwen3_vl"
    assert found.model_id == student.model_id and found.folder != student.folder
    ids = after.encode(TEXT, add_special_tokens=False)
    assert after.decode(ids) == TEXT
    pieces = {before.convert_tokens_to_ids(tag) for tag in ("<think>", "</think>")}
    assert pieces.isdisjoint(ids)
    assert after.convert_tokens_to_ids("<answer>") in ids
    others = {t: i for t, i in before.get_vocab().items() if i not in pieces}
    assert others.items() <= after.get_vocab().items()
    plain = "No tag, <|im_end|> alone."
    assert after.encode(plain) == before.encode(plain)


def test_a_student_that_was_taught_here_keeps_its_tags(warehouse: Warehouse) -> None:
    recipe = sft("text_tags=[think]")
    with open_start(warehouse, recipe, "nano-base") as found:
        assert found.folder == BASE


def test_a_tokenizer_that_writes_the_tag_whole_by_other_means_is_refused(
    student: Student, tmp_path: Path
) -> None:
    whole = Tokenizer(WordLevel({"<think>": 0, "</think>": 1, "?": 2}, unk_token="?"))
    whole.pre_tokenizer = WhitespaceSplit()
    folder = tmp_path / "whole"
    folder.mkdir()
    whole.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    with (
        pytest.raises(TrainingError, match=r"can't write <think>, </think> as text"),
        with_text_tags(replace(student, folder=folder), ["think"]),
    ):
        pass


@pytest.mark.slow
def test_preflight_says_which_tags_and_the_recipe_teaches_them_as_text(
    warehouse: Warehouse, instruct: Path
) -> None:
    said: list[str] = []
    reporter = TrainingReporter(message=said.append)
    given = {"model": str(instruct), "reporter": reporter}
    assert train_sft(warehouse, sft(), "kept", only_check=True, **given) is None
    (told,) = (line for line in said if "single tokens" in line)
    assert "<think> are single tokens that the model's own chat template never writes" in told
    assert "`text_tags: [answer, think]`" in told

    said.clear()
    recipe = sft("text_tags=[think, answer]", "steps=1")
    row = train_sft(warehouse, recipe, "kept", name="as-text", **given)
    assert row is not None and not any("single tokens" in line for line in said)
    with open_model(warehouse, row) as folder:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer.encode(TEXT, add_special_tokens=False)
        assert not set(ids) & set(tokenizer.get_added_vocab().values())
    with open_student(warehouse, "as-text") as found:
        assert found.taught_here
