"""The reference implementation's trees become ours: searched text kept, judged anew, traceable."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curation.traces.linearize import linearize
from flows.cli import app as cli
from flows.cli.interrupts import run
from flows.settings import CurateSettings
from flows.stages.curate import curate
from mcts.coordinates import CoordinateSpace
from mcts.data import AnswerKind
from tests.support.benchmark_files import image_file
from tests.support.sat_files import rejects
from warehouse.lineage.lineage import Entity, Walker
from warehouse.query.read_back import read_trees
from warehouse.query.run_query import query
from warehouse.sources.importing_trees import TreeQuestions, import_trees
from warehouse.sources.reading.accept_drafts import Accepted, Checker
from warehouse.sources.reading.drafts import Draft, ImportProblem, ReadContext, Reject
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions

QUESTION = "<image>\nIs the cup left or right?\nOptions: left or right."
LEFT, RIGHT = "<answer>left</answer>", "<answer>B. right</answer>"


def think(x: int, y: int, what: str = "cup") -> str:
    return f"<think>The {what} is at ({x}, {y}).</think>"


def node(text: str, *children: Any, rollouts: Any = (), terminal: bool = False) -> dict[str, Any]:
    return {
        "thought_text": text, "is_terminal": terminal, "value": 0.5, "visit_count": 2,
        "rollouts": list(rollouts), "children": list(children), "used_coords": [],
    }  # fmt: skip


def rollout(path: list[str], own: list[str], reward: float) -> dict[str, Any]:
    return {
        "final_answer": own[-1] if own else path[-1], "reward": reward,
        "ephemeral_texts": [*path, *own], "ephemeral_depth": len(path) - 1 + len(own),
        "depth": len(own), "num_same_points": 0, "num_different_points": len(own),
    }  # fmt: skip


def record(tree: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    return {
        "question": QUESTION, "image": "/data/images/sat/1.png", "true_answer": "left",
        "tree": tree or grown_tree(), "system_prompt": "Think.", "global_search_time": 61.5,
        "id": 7, **changed,
    }  # fmt: skip


def grown_tree() -> dict[str, Any]:
    """Two thoughts, the first with a right, a wrong and an unfinished rollout, and an answer."""
    first, second = think(20, 30), think(60, 70, "lamp")
    path = [QUESTION, first]
    answer = node("left", terminal=True, rollouts=[rollout([QUESTION, "left"], [], 1)] * 2)
    return node(
        QUESTION,
        node(
            first,
            node(second, rollouts=[rollout([*path, second], [LEFT], 1)]),
            rollouts=[
                rollout(path, [think(80, 10, "shelf"), LEFT], 1),
                rollout(path, [think(90, 90, "chair"), RIGHT], 0),
                rollout(path, ["<think>It may be left of the lamp at (5, 5)."], 1),
            ],
        ),
        answer,
    )


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "home"))


def published(folder: Path, *records: Any, name: str = "rollouts_sat_worker0_final.jsonl") -> Path:
    image_file(folder, "images/sat/1.png", 1)
    (folder / "args.json").write_text(json.dumps({"model": "qwen72b", "n_simulations": 8}))
    path = folder / name
    lines = (r if isinstance(r, str) else json.dumps(r) for r in records)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_published_tree_is_one_of_ours(warehouse: Warehouse, tmp_path: Path) -> None:
    path = published(tmp_path / "run", record())
    report = import_trees(warehouse, path, into="sat2", image_root=tmp_path / "run" / "images")
    assert (report.trees, report.already_there, report.questions.added) == (1, 0, 1)
    (question,) = read_questions(warehouse, "sat2")
    assert (question.text, question.choices) == ("Is the cup left or right?", ("left", "right"))
    (row,) = query(warehouse, "FROM trees").to_pylist()
    assert (row["model"], row["simulations"], row["seconds"]) == ("qwen72b", 8, 61.5)
    assert (row["space"], row["status"], row["any_right"]) == (
        "absolute_original",
        "complete",
        True,
    )
    assert json.loads(row["config"])["args"] == {"model": "qwen72b", "n_simulations": 8}
    ((tree, _),) = read_trees(warehouse, [row["tree_id"]])
    root, first, answer, second = tree.nodes
    assert (root.step, first.depth, second.depth, answer.depth) == (None, 1, 2, 1)
    assert first.step and (first.step.points[0].x, first.step.points[0].y) == (20, 30)
    assert (answer.terminal, answer.answer, answer.reward) == (True, "left", 1)
    assert [r.answer for r in tree.rollouts] == ["left", "B. right", None, "left"]
    assert [r.reward for r in tree.rollouts] == [1, 0, 0, 1]
    assert [len(r.steps) for r in tree.rollouts] == [1, 1, 1, 0]
    # values are counted anew: four rollouts and one answer, of which three are right
    assert (root.visits, root.value) == (5, pytest.approx(3 / 5))
    stored = query(warehouse, "SELECT visits, value FROM nodes ORDER BY node_id").to_pylist()
    assert [(n["visits"], round(n["value"], 6)) for n in stored] == [
        (5, 0.6), (4, 0.5), (1, 1.0), (1, 1.0)
    ]  # fmt: skip


def test_rewards_are_judged_by_our_grader_and_say_where_it_differs(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    """An unfinished thought that contains the gold word was right there, and is not here."""
    path = published(tmp_path / "run", record())
    report = import_trees(warehouse, path, into="sat2", image_root=tmp_path / "run" / "images")
    assert (report.graded, report.differing) == (5, 1)
    reasons = query(
        warehouse, "SELECT grade_reason FROM rollouts WHERE grade_reason LIKE '%published%'"
    ).to_pylist()
    assert reasons == [{"grade_reason": "no answer was given; the published reward is 1"}]


def test_importing_again_adds_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    path = published(tmp_path / "run", record(), record(true_answer="right"))
    root = tmp_path / "run" / "images"
    assert import_trees(warehouse, path, into="sat2", image_root=root).trees == 2
    again = import_trees(warehouse, path, into="sat2", image_root=root)
    assert (again.trees, again.already_there) == (0, 2)
    assert query(warehouse, "SELECT count(*) AS n FROM nodes").to_pylist() == [{"n": 8}]


def test_traces_are_cut_from_it_and_lead_back_to_the_text_and_the_image(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    path = published(tmp_path / "run", record())
    import_trees(warehouse, path, into="sat2", image_root=tmp_path / "run" / "images")
    run(curate(CurateSettings(task="sat2", home=warehouse.root)))
    traces = query(warehouse, "SELECT trace_id, kind, text, reward FROM traces").to_pylist()
    kinds = Counter((trace["kind"], trace["reward"]) for trace in traces)
    # a wrong end before a right one of the same tree: right lines that turn back
    assert kinds["direct", 1.0] == 3 and kinds["direct", 0.0] == 2
    assert kinds["corrected", 1.0] >= 1
    imported = next(t for t in traces if "shelf" in t["text"] and t["kind"] == "direct")
    assert imported["text"] == (
        "<think>The cup is at (20, 30).</think>\n<think>The shelf is at (80, 10).</think>\n"
        "<answer>left</answer>"
    )
    with Walker(warehouse) as walker:
        found = walker.lineage(Entity("trace", (imported["trace_id"],)))
    kinds = {entity.kind for entity in found.ancestors}
    assert {"response", "node", "tree", "question", "image"} <= kinds
    steps = query(
        warehouse,
        "SELECT s.thought, r.text FROM steps s JOIN responses r USING (response_id) "
        f"WHERE s.trace_id = '{imported['trace_id']}' ORDER BY s.step",
    ).to_pylist()
    assert all(step["thought"] in step["text"] for step in steps)
    assert len(steps) == 2


def test_points_of_another_space_become_original_pixels(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    """The picture is 200x100; in thousandths (500, 500) is its middle."""
    tree = node(QUESTION, node(think(500, 500), rollouts=[
        rollout([QUESTION, think(500, 500)], ["<answer>(500, 500)</answer>"], 1)]))  # fmt: skip
    box = record(tree, question="<image>Click the cup", true_answer="(90, 40, 110, 60)")
    path = published(tmp_path / "run", box)
    space = CoordinateSpace.qwen2_vl()
    report = import_trees(warehouse, path, space=space, image_root=tmp_path / "run" / "images")
    assert (report.task, report.differing) == ("web-grounding", 0)
    (found,) = query(warehouse, "SELECT x, y, thought FROM nodes WHERE x IS NOT NULL").to_pylist()
    assert found == {"x": 100, "y": 50, "thought": "The cup is at (100, 50)."}
    ((tree_back, _),) = read_trees(warehouse, query(warehouse, "FROM trees")["tree_id"].to_pylist())
    assert [r.answer for r in tree_back.rollouts] == ["(100, 50)"]
    assert [t.reward for t in linearize(tree_back)] == [1]


def test_a_mark_within_a_sentence_of_a_question_stays(warehouse: Warehouse, tmp_path: Path) -> None:
    path = published(
        tmp_path / "run", record(question="<image>\nWhat does <image> mean in this HTML?")
    )
    import_trees(warehouse, path, into="sat2", image_root=tmp_path / "run" / "images")
    (question,) = read_questions(warehouse, "sat2")
    assert question.text == "What does <image> mean in this HTML?"


def test_actions_go_into_web_action_and_texts_want_a_task(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    action = record(true_answer="click [12]", question="OBJECTIVE: Log in")
    path = published(tmp_path / "run", action)
    root = tmp_path / "run" / "images"
    report = import_trees(warehouse, path, image_root=root)
    assert report.task == "web-action"
    (question,) = read_questions(warehouse, "web-action")
    assert question.answer_kind is AnswerKind.ACTION
    with pytest.raises(ImportProblem, match="say with --into which task"):
        import_trees(warehouse, published(tmp_path / "run", record()), image_root=root)


def test_a_folder_is_read_without_its_errors(warehouse: Warehouse, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    published(folder, record())
    published(folder, record(true_answer="right"), name="rollouts_sat_worker1_ckpt1.jsonl")
    published(folder, {"error": "timeout", "id": 1}, name="errors_worker0.jsonl")
    report = import_trees(warehouse, folder, into="sat2", image_root=folder / "images")
    assert (report.trees, report.questions.rejected) == (2, 0)


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        ("{oh", "line", "this is not JSON"),
        ({"error": "timeout", "id": 3}, "error", "the search failed: timeout"),
        (record(question=""), "question", "there is no question"),
        (record(true_answer=None), "true_answer", "there is no true answer"),
        (record(image="/data/images/sat/9.png"), "image", "9.png: there is no such file"),
        (record(image="../../1.png"), "image", "../../1.png: the name leads out"),
        (record(tree={"children": []}), "tree", "it is not a node: it has no thought_text"),
        (record(node("?", {"thought_text": 3})), "tree.children[0]", "it is not a node"),
        (record(node("?", node("a", rollouts=[{"reward": 1}]))), "tree.children[0].rollouts[0]",
         "it has no ephemeral_texts"),
        (record({**node("?"), "children": "none"}), "tree.children", "it should be a list"),
        (record(true_answer="behind", question="Where?\nA. left\nB. right"), "answer",
         "the answer 'behind' is none"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_tree_is_named(tmp_path: Path, bad: Any, field: str, reason: str) -> None:
    path = published(tmp_path / "run", record(), bad)
    context, checker = ReadContext("sat2", tmp_path / "run" / "images"), Checker("sat2")
    drafts = TreeQuestions().formats()[".jsonl"](path, context)
    good, found = (checker.check(d, "train") if isinstance(d, Draft) else d for d in drafts)
    assert isinstance(good, Accepted)
    assert isinstance(found, Reject)
    assert (found.row, found.field) == (2, field)
    assert found.reason.startswith(reason)


def test_a_rejected_line_leaves_the_others(warehouse: Warehouse, tmp_path: Path) -> None:
    path = published(tmp_path / "run", "{oh", record())
    report = import_trees(warehouse, path, into="sat2", image_root=tmp_path / "run" / "images")
    assert (report.trees, report.questions.rejected) == (1, 1)
    assert [row[1:3] for row in rejects(report.questions.rejects_path)] == [(1, "line")]


def test_the_command_says_what_came_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = published(tmp_path / "run", record())
    monkeypatch.setenv("VIGORL_HOME", str(tmp_path / "home"))
    arguments = ["vigorl", "import", "reference-trees", str(path), "--into", "sat2",
                 "--image-root", str(tmp_path / "run" / "images")]  # fmt: skip
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code in (0, None)
    printed = capsys.readouterr()
    assert printed.out.startswith("1 trees of sat2 added, 0 already there, 0 rejected")
    assert "1 of 5 published rewards differ from our grader's" in printed.err
