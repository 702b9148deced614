"""Import of the reference implementation's JSONL, whose pictures lie below an image root."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mcts.data import AnswerKind, Box
from tests.support.sat_files import picture, rejects
from warehouse.sources.importing import ImportProblem, import_questions
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "home"))


def jsonl(path: Path, *records: Any) -> Path:
    lines = (r if isinstance(r, str) else json.dumps(r) for r in records)
    path.write_text("\n".join(lines) + "\n")
    return path


def talk(query: str, gold: str, image: Any = "a/b.png") -> dict[str, Any]:
    turns = [{"from": "human", "value": query}, {"from": "gpt", "value": gold}]
    return {"id": "1", "image": image, "conversations": turns, "model": "x"}


@pytest.fixture
def image_root(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "a").mkdir(parents=True)
    (root / "a" / "b.png").write_bytes(picture(1))
    (root / "a" / "c.png").write_bytes(picture(2))
    (tmp_path / "outside.png").write_bytes(picture(3))
    os.symlink(tmp_path / "outside.png", root / "link.png")
    os.symlink(root / "loop.png", root / "loop.png")
    return root


def test_reference_lines_become_questions_of_their_kind(
    warehouse: Warehouse, tmp_path: Path, image_root: Path
) -> None:
    lettered = talk("<image>\nWhere is it?\nA. left of it\nB. right of it", "right of it")
    listed = talk("Is it here? Choose between the following options: yes, no, or unsure.", "no")
    free = talk("<image>How many?", "3", ["a/b.png", "a/c.png"])
    box = talk("Click the button", "(3, 4, 20, 21)")
    file = jsonl(tmp_path / "train.jsonl", lettered, listed, free, box)
    assert import_questions(warehouse, "sat2", file, image_root=image_root).added == 4
    found = {question.text: question for question in read_questions(warehouse)}
    assert found["Where is it?"].choices == ("left of it", "right of it")
    assert found["Where is it?"].answers == ("right of it",)
    assert found["Is it here?"].choices == ("yes", "no", "unsure")
    assert found["How many?"].choices == ()
    assert len(found["How many?"].images) == 2
    assert found["Click the button"].answer_kind is AnswerKind.BOX
    assert found["Click the button"].boxes == (Box(3, 4, 20, 21),)
    action = jsonl(tmp_path / "train-action.jsonl", talk("Log in", "click [12]"))
    import_questions(warehouse, "web-action", action, image_root=image_root)
    (question,) = read_questions(warehouse, "web-action")
    assert (question.answer_kind, question.answers) == (AnswerKind.ACTION, ("click [12]",))


@pytest.mark.parametrize(
    ("record", "field", "reason"),
    [
        ("{not json", "line", "this is not JSON"),
        ("[1, 2]", "line", "this is not a JSON object"),
        ({"image": "a/b.png"}, "conversations", "there are no question and answer turns"),
        (talk("?", "left", None), "image", "there is no image"),
        (talk("?", "left", "../outside.png"), "image", "../outside.png: the name leads out"),
        (talk("?", "left", "a/../../outside.png"), "image", "a/../../outside.png: the name leads"),
        (talk("?", "left", "/etc/passwd"), "image", "/etc/passwd: the name leads out"),
        (
            talk("?", "left", "link.png"),
            "image",
            "link.png: the name leads out of the image root t",
        ),
        (talk("?", "left", "loop.png"), "image", "loop.png: "),
        (talk("?", "left", "none.png"), "image", "none.png: there is no such file"),
        (talk("?", "left", "a"), "image", "a: there is no such file"),
        (talk("?", "left", "a/\0.png"), "image", "a/\0.png: the name leads out"),
        (talk("?", " "), "conversations", "there is no answer"),
        (
            {
                **{
                    "problem": "<image>You answer.",
                    "answer": "(1, 2, 3, 4)",
                    "images": ["a/b.png"],
                },
                **{"question_id": "q", "pass_rate": 0.5, "band": "easy"},
            },
            "problem",
            "this is an export's whole prompt; import what the dataset was made from",
        ),
        (talk("?", "(3, 4, 300, 21)"), "answer", "the gold box (3, 4, 300, 21) is not in 56x42"),
        (talk("?", "(9, 4, 3, 21)"), "answer", "the gold box (9, 4, 3, 21) is not in 56x42"),
        (talk("?\nA. up\nB. down", "left"), "answer", "the answer 'left' is none of the choices"),
    ],
)
def test_a_bad_line_is_rejected_with_its_number(
    warehouse: Warehouse, tmp_path: Path, image_root: Path, record: Any, field: str, reason: str
) -> None:
    file = jsonl(tmp_path / "train.jsonl", talk("Good?", "yes"), "", record)
    report = import_questions(warehouse, "sat2", file, image_root=image_root)
    assert report.added == 1
    ((_, number, found_field, found_reason),) = rejects(report.rejects_path)
    assert (number, found_field) == (3, field)
    assert found_reason.startswith(reason)


def test_turns_are_read_by_who_speaks(
    warehouse: Warehouse, tmp_path: Path, image_root: Path
) -> None:
    system = {"from": "system", "value": "You answer."}
    asked = {"role": "user", "content": "<image>Is it red?"}
    said = {"role": "assistant", "content": "<think>It is.</think><answer>yes</answer>"}
    later = [{"from": "human", "value": "And now?"}, {"from": "gpt", "value": "no"}]
    lines = [
        {"image": "a/b.png", "conversations": [system, asked, said, *later]},
        {"image": "a/b.png", "conversations": [said, asked, said]},
        {"image": "a/b.png", "conversations": [system, asked, asked]},
        {"image": "a/b.png", "conversations": [system, asked]},
    ]
    file = jsonl(tmp_path / "train.jsonl", *lines)
    report = import_questions(warehouse, "sat2", file, image_root=image_root)
    assert (report.added, report.left_out) == (1, 1)
    (question,) = read_questions(warehouse)
    assert (question.text, question.answers) == ("Is it red?", ("yes",))
    assert [reason for _, _, _, reason in rejects(report.rejects_path)] == [
        "the question should be from human or user, not from assistant",
        "the answer should be from gpt or assistant, not from user",
        "there are no question and answer turns",
    ]
    assert "it is a later question of a conversation" in report.remarks[0]


def test_a_jsonl_without_image_root_is_refused(warehouse: Warehouse, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "train.jsonl", talk("?", "yes"))
    with pytest.raises(ImportProblem, match="say with --image-root where they are"):
        import_questions(warehouse, "vstar", file)
    with pytest.raises(ImportProblem, match="is not a folder"):
        import_questions(warehouse, "vstar", file, image_root=tmp_path / "none")


def test_lines_of_another_dataset_are_told_by_their_columns_first(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    """As where `vstar` is typed for `vstar-bench`."""
    file = jsonl(tmp_path / "test.jsonl", {"image": "a.jpg", "text": "?", "label": "A"})
    wanted = "is not the reference implementation's: it has no column conversations or problem"
    with pytest.raises(ImportProblem, match=wanted):
        import_questions(warehouse, "vstar", file)
