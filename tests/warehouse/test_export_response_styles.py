"""Response styles, exported and published: with and without points, answers alone, zooms."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.traces.response_styles import answer_only, without_points
from mcts.coordinates import CoordinateSpace
from mcts.data import ResponseStyle
from tests.flows.test_cli import run, searched
from tests.warehouse.test_versions import KEPT
from warehouse.exports.export import export, read_notes
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.versions.bundle import trace_of
from warehouse.versions.diff import diff
from warehouse.versions.response_styles import parse_response_style
from warehouse.versions.versions import open_version, publish, resolve, show

QWEN3 = CoordinateSpace.qwen3_vl()
COORDINATE = re.compile(r"\(\d[\d.]*, \d[\d.]*\)")
SFT = [("trl", "parquet"), ("llama-factory", "parquet"), ("trl", "jsonl")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = Warehouse(str(searched(tmp_path_factory.mktemp("made"), 4, simulations=5)))
    publish(warehouse, "all", KEPT)
    return warehouse


def exported(
    warehouse: Warehouse, out: Path, to: str = "trl", ref: str = "all", **options: Any
) -> list[dict[str, Any]]:
    from datasets import load_dataset

    export(warehouse, resolve(warehouse, ref), to, out, space=QWEN3, **options)
    return list(load_dataset(str(out), split="train", cache_dir=str(out.parent / "cache")))


def test_grounded_and_ungrounded_exports_hold_the_same_chains(
    made: Warehouse, tmp_path: Path
) -> None:
    grounded = exported(made, tmp_path / "g", response_style=ResponseStyle.GROUNDED)
    ungrounded = exported(made, tmp_path / "u", response_style=ResponseStyle.UNGROUNDED)
    assert [row["trace_id"] for row in grounded] == [row["trace_id"] for row in ungrounded]
    assert {row["kind"] for row in grounded} == {"direct", "corrected"}
    for with_points, without in zip(grounded, ungrounded, strict=True):
        assert COORDINATE.search(with_points["messages"][-1]["content"])
        assert without["kind"] == "ungrounded"
        text = "\n".join(message["content"] for message in without["messages"])
        assert "Do not write coordinates" in text and not COORDINATE.search(text)
    about = json.loads((tmp_path / "u" / "export.json").read_text())
    assert about["response_style"] == "ungrounded" and list(about["prompts"]) == ["thoughts"]


def test_an_answer_counts_once_however_often_it_was_reached(
    made: Warehouse, tmp_path: Path
) -> None:
    rows = exported(made, tmp_path / "out", response_style=ResponseStyle.ANSWER_ONLY)
    kept = query(made, "SELECT DISTINCT question_id, answer FROM kept_traces")
    n_rows = resolve(made, "all").n_rows
    assert len(rows) == kept.num_rows < n_rows
    repeats = f"{n_rows - len(rows)} left out, with an answer that another chain of the question"
    assert read_notes(tmp_path / "out")[0] == f"{repeats} gave"
    for row in rows:
        assert re.fullmatch(r"<answer>.+</answer>", row["messages"][-1]["content"])
        assert "without any reasoning" in row["messages"][0]["content"]


@pytest.mark.parametrize(("to", "files"), SFT)
def test_a_dialogue_holds_each_crop_behind_the_call_for_it(
    made: Warehouse, tmp_path: Path, to: str, files: str
) -> None:
    rows = exported(made, tmp_path / "out", to, response_style=ResponseStyle.ZOOM, files=files)
    assert rows
    for row in rows:
        turns = [(m["role"], m["content"]) for m in row["messages"]]
        if to == "trl":
            flat = [
                (r, "".join("<image>" if b["type"] == "image" else b["text"] for b in content))
                for r, content in turns
            ]
        else:
            flat = turns
        assert [r for r, _ in flat[:2]] == ["system", "user"] and flat[-1][0] == "assistant"
        assert "search_coordinate" in flat[0][1]
        shown = 0
        for (before, call), (role, text) in pairwise(flat[1:]):
            assert "assistant" in (before, role) and before != role
            if before == "assistant":
                assert role == ("user" if to == "trl" else "tool")
                assert call.endswith("</tool_call>") and text.startswith("<image><observation>")
                shown += 1
        assert shown >= 1 and flat[-1][1].endswith("</answer>")
        own = flat[1][1].count("<image>")
        assert len(row["images"]) == own + shown
        if files == "parquet":
            assert {max(picture.size) for picture in row["images"][own:]} == {672}
        else:
            assert all((tmp_path / "out" / path).is_file() for path in row["images"])


def test_trl_puts_the_crops_of_a_dialogue_where_they_belong(
    made: Warehouse, tmp_path: Path
) -> None:
    from trl.data_utils import prepare_multimodal_messages

    row = exported(made, tmp_path / "out", response_style=ResponseStyle.ZOOM)[0]
    filled = prepare_multimodal_messages(row["messages"], images=row["images"])
    pictures = [
        block["image"] for m in filled for block in m["content"] if block["type"] == "image"
    ]
    assert pictures == row["images"]


def test_a_published_response_style_keeps_the_way_to_its_chains(
    made: Warehouse, tmp_path: Path
) -> None:
    version = publish(made, "plain", KEPT, response_style=ResponseStyle.UNGROUNDED)
    assert version == publish(made, "plain", KEPT, response_style=ResponseStyle.UNGROUNDED)
    with (
        open_version(made, version) as folder,
        open_version(made, resolve(made, "all")) as base,
    ):
        rows = {r["trace_id"]: r for r in pq.read_table(folder / "rows.parquet").to_pylist()}
        for row in pq.read_table(base / "rows.parquet").to_pylist():
            twin = without_points(trace_of(row))
            written = rows.pop(row["trace_id"], None)
            assert (twin is None) == (written is None)
            if twin and written:
                again = trace_of(written)
                assert (again.steps, again.kind, again.answer) == (
                    twin.steps, "ungrounded", twin.answer,
                )  # fmt: skip
        assert rows == {}
    assert (version.card["by_kind"], version.card["mean_points"]) == (
        {"ungrounded": version.n_rows},
        0,
    )
    assert "Response style `ungrounded`: the same chains without their points." in show(
        made, "plain"
    )
    stored = exported(made, tmp_path / "out", ref="plain")
    assert stored == exported(made, tmp_path / "same", response_style=ResponseStyle.UNGROUNDED)


def test_answers_are_published_once_and_a_diff_says_why_the_others_are_missing(
    made: Warehouse,
) -> None:
    version = publish(made, "answers", KEPT, response_style=ResponseStyle.ANSWER_ONLY)
    base = resolve(made, "all")
    assert version.card["left_out"] == base.n_rows - version.n_rows > 0
    with open_version(made, version) as folder:
        traces = [trace_of(r) for r in pq.read_table(folder / "rows.parquet").to_pylist()]
    assert len({answer_only(trace).trace_id for trace in traces}) == len(traces)
    found = diff(made, base, version)
    removed = [d for d in found.differences if d.change == "removed"]
    assert len(removed) == version.card["left_out"]
    assert {(d.reason, d.what) for d in removed} == {("response style", "answer_only")}


def test_a_response_style_that_cannot_be_had_is_refused(made: Warehouse, tmp_path: Path) -> None:
    publish(made, "without", KEPT, response_style=ResponseStyle.UNGROUNDED)
    for ref, to, style, why in (
        ("all", "dpo", ResponseStyle.UNGROUNDED, "made from trees, and has no response style"),
        ("without", "trl", ResponseStyle.GROUNDED, "was published with response style ungrounded"),
    ):
        with pytest.raises(WarehouseError, match=why):
            export(
                made, resolve(made, ref), to, tmp_path / "out", space=QWEN3, response_style=style
            )
    assert not (tmp_path / "out").exists()
    with pytest.raises(WarehouseError, match="no response style 'x'; there are: grounded, ungro"):
        parse_response_style("x")
    corrected = "SELECT trace_id FROM kept_traces WHERE kind = 'corrected'"
    with pytest.raises(WarehouseError, match="no chosen trace can be written"):
        publish(made, "x", corrected, response_style=ResponseStyle.ZOOM)


def test_a_card_with_the_former_key_is_read_and_its_content_found_again(made: Warehouse) -> None:
    version = publish(made, "once", KEPT, response_style=ResponseStyle.ANSWER_ONLY)
    path = Path(made.root) / version.prefix / "card.json"
    card = json.loads(path.read_text())
    assert card.pop("response_style") == "answer_only"
    path.chmod(0o644)
    path.write_text(json.dumps({**card, "variant": "answers"}))
    former = resolve(made, "once")
    assert former.response_style is ResponseStyle.ANSWER_ONLY
    assert "Response style `answer_only`: answers without reasoning" in show(made, "once")
    assert publish(made, "once", KEPT, response_style=ResponseStyle.ANSWER_ONLY) == former


def test_the_former_flag_works_and_says_its_new_name(
    made: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answers"
    command = ("dataset", "export", "all", "--variant", "answers", "--space", "qwen3-vl")
    assert run(*command, "--out", out, home=made.root) == 0
    assert "--variant is called --response-style now" in capsys.readouterr().err
    assert json.loads((out / "export.json").read_text())["response_style"] == "answer_only"


def test_the_limits_of_a_students_pixels_are_taken(
    made: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ("dataset", "export", "all", "--out", out, "--max-pixels", 2_850_000)
    for options, said in (
        ((), "max_pixels: give --space too"),
        (
            ("--space", "qwen2.5-vl", "--min-pixels", 2_850_001),
            "max_pixels: min_pixels 2850001 >",
        ),
    ):
        assert run(*command, *options, home=made.root) == 2
        assert said in capsys.readouterr().err and not out.exists()
    assert run(*command, "--space", "qwen2.5-vl", home=made.root) == 0
    assert "min_pixels 3136 and max_pixels 2850000" in capsys.readouterr().out
    space = json.loads((out / "export.json").read_text())["space"]
    assert (space["min_pixels"], space["max_pixels"]) == (3_136, 2_850_000)


PROMPTS = """
SELECT min(trace_id) AS trace_id FROM latest_traces
JOIN grpo_prompts USING (question_id, model)
WHERE split = 'train' AND band != 'solved' GROUP BY question_id
"""


@pytest.mark.parametrize("to", ["grpo", "verl", "easyr1"])
def test_prompts_carry_the_pass_rate_their_version_was_cut_by(
    made: Warehouse, tmp_path: Path, to: str
) -> None:
    version = publish(made, "prompts", PROMPTS)
    rows = exported(made, tmp_path / "out", to, ref="prompts")
    known = {r["question_id"]: r for r in query(made, "FROM grpo_prompts").to_pylist()}
    assert len(rows) == version.n_rows == version.card["questions"] > 0
    for row in rows:
        about = row["extra_info"] if to == "verl" else row
        rated = known[about["question_id"]]
        assert (about["pass_rate"], about["band"]) == (rated["pass_rate"], rated["band"])
        assert about["band"] != "solved"
    if to == "grpo":
        assert [m["role"] for m in rows[0]["prompt"]] == ["system", "user"]
        assert rows[0]["gold"] in rows[0]["answers"]
