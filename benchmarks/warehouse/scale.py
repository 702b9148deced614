"""`make bench-scale`: what a warehouse of so many traces costs, in seconds and memory.

    python -m benchmarks.warehouse.scale --folder DIR            # 10 and 100 thousand traces
    python -m benchmarks.warehouse.scale --folder DIR --sizes 1000000,10000000

Of each size a warehouse of synthetic trees is made (`synthetic`), cut and judged by the filters of
single traces as a build leaves it; then each step runs in a process of its own, whose peak memory
is that of the process. Seconds are told as they passed, and as processors counted them, which says
more on a machine that does other work. What is measured is noted in DIR/scale.json: killed and
started again, the rest is measured. The warehouse of a size is removed once all its steps are.

Texts are short: two sentences, some twenty words. Ten million traces of them, published once, are
9 GB.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image as PILImage

from benchmarks.warehouse import synthetic
from curation.filters import image_hash, rules
from curation.filters.config import DEFAULT_FILTERS, trace_filters
from curation.scores import behaviors
from curation.traces import linearize
from flows.settings import CurateSettings
from flows.stages.corpus.passes import filter_corpus
from flows.stages.curate import curate, other_filters, summarize
from flows.stages.gallery import gallery
from mcts.data import Image
from warehouse.maintenance.check import check
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import put_images
from warehouse.tables.delta import append, commit_tables, rows_to_arrow
from warehouse.tables.rows import question_from
from warehouse.tables.schema import TABLES
from warehouse.versions.versions import publish

TASK = "sat2"
QUESTIONS_PER_IMAGE = 4
NEW_QUESTIONS = 1000
EVALUATION_QUESTIONS = 1000
_SIZE = (640, 480)
PAGE = 50
"""Traces of the gallery that is a page."""
BATCH = 50_000
"""Traces committed at once."""


# ---- the warehouse -----------------------------------------------------------------------------


def fill(warehouse: Warehouse, traces: int, seed: int = 7, *, pictures: bool = False) -> list[str]:
    """Commit trees with their traces, judged by the first filters; return the ids of the trees.

    Args:
        pictures: whether images can be decoded, and are not hashed yet.
    """
    tree_ids: list[str] = []
    batches = -(-traces // BATCH)
    for number, batch in enumerate(synthetic.batches(traces, batches, seed)):
        name = f"{seed}-{number}"
        n = -(-batch["questions"].num_rows // QUESTIONS_PER_IMAGE)
        images = [_picture([seed, number, i]) for i in range(n)] if pictures else [
            f"synthetic image {name} {i}".encode() for i in range(n)
        ]  # fmt: skip
        ids = _add_images(warehouse, images, name, hashed=not pictures)
        shown = [ids[i // QUESTIONS_PER_IMAGE] for i in range(batch["questions"].num_rows)]
        asked = _asked(batch["questions"], shown, name)
        batch = {key: _renamed(table, batch["questions"], asked) for key, table in batch.items()}
        append(warehouse, "questions", asked, f"questions {name}")
        counted = _with(batch["behaviors"], method=behaviors.METHOD)
        append(warehouse, "behaviors", counted, f"behaviors {name}")
        trees = _with(batch["trees"], task=TASK)
        children = {"nodes": batch["nodes"], "responses": batch["responses"]}
        children["rollouts"] = rows_to_arrow("rollouts", [])
        commit_tables(warehouse, "trees", trees, children, run_id=f"fill {name}")
        cut = _with(batch["traces"], task=TASK, linearizer=linearize.MAKER)
        children = {"steps": batch["steps"], "verdicts": _verdicts(cut)}
        commit_tables(warehouse, "traces", cut, children, run_id=f"fill {name}")
        tree_ids += trees["tree_id"].to_pylist()
    return tree_ids


def fill_evaluation(warehouse: Warehouse) -> None:
    """Add questions that traces must not have been trained on."""
    traces = EVALUATION_QUESTIONS * synthetic.TRACES_PER_TREE * synthetic.TREES_PER_QUESTION
    (batch,) = synthetic.batches(traces, 1, seed=8)
    n = batch["questions"].num_rows
    images = [f"synthetic evaluation image {i}".encode() for i in range(n)]
    ids = _add_images(warehouse, images, "evaluation", hashed=True)
    asked = _with(_asked(batch["questions"], ids, "evaluation"), split="test")
    append(warehouse, "questions", asked, "questions for evaluation")


def _asked(questions: pa.Table, images: list[str], name: str) -> pa.Table:
    """Make questions that differ, each about one image, with the ids that they have by content."""
    rows = questions.to_pylist()
    for number, (row, image_id) in enumerate(zip(rows, images, strict=True)):
        row |= {"image_ids": [image_id], "task": TASK}
        row["text"] = f"{row['text']}, case {name} {number}?"
        known = {image_id: Image(image_id, *_SIZE)}
        row["question_id"] = question_from(row, known).question_id
    return pa.Table.from_pylist(rows, questions.schema)


def _renamed(table: pa.Table, old: pa.Table, new: pa.Table) -> pa.Table:
    """Exchange the ids of questions in a table that names some."""
    if "question_id" not in table.schema.names:
        return table
    places = pc.index_in(table["question_id"], value_set=old["question_id"].combine_chunks())
    ids = new["question_id"].combine_chunks().take(places.combine_chunks())
    return _with(table, question_id=ids.to_pylist())


def _add_images(warehouse: Warehouse, images: list[bytes], name: str, *, hashed: bool) -> list[str]:
    ids = [hashlib.sha256(data).hexdigest() for data in images]
    put_images(warehouse.objects, images)
    rows = [
        {
            "image_id": i,
            "width": _SIZE[0],
            "height": _SIZE[1],
            "format": "PNG",
            "source": "synthetic",
        }
        for i in ids
    ]
    append(warehouse, "images", rows, f"images {name}")
    if hashed:  # as random as the ids are
        hashes = [{"image_id": i, "method": image_hash.METHOD, "hash": i[:16]} for i in ids]
        append(warehouse, "image_hashes", hashes, f"hashes {name}")
    return ids


def _picture(seed: list[int]) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    data = io.BytesIO()
    PILImage.fromarray(noise).resize(_SIZE, PILImage.Resampling.BICUBIC).save(data, "PNG")
    return data.getvalue()


def _with(table: pa.Table, **columns: Any) -> pa.Table:
    """Set columns of a table, each to one value or to a list of them."""
    for name, value in columns.items():
        field = table.schema.field(name)
        values = pa.array(value, field.type) if isinstance(value, list) else pa.repeat(
            pa.scalar(value, field.type), table.num_rows
        )  # fmt: skip
        table = table.set_column(table.schema.get_field_index(name), field, values)
    return table


def _verdicts(traces: pa.Table) -> pa.Table:
    """Make the verdicts of the filters of single traces: the first one drops what is wrong."""
    right = traces["reward"].to_numpy() == 1
    parts = []
    for one in trace_filters(DEFAULT_FILTERS, None):
        n = traces.num_rows
        keep = right if one.name == "right_answer" else np.ones(n, bool)
        columns = {
            "trace_id": traces["trace_id"], "filter": pa.repeat(one.name, n),
            "version": pa.repeat(rules.VERSION, n), "keep": pa.array(keep),
            "reason": pa.repeat("", n), "score": pa.repeat(1.0, n),
            "method": pa.repeat(
                pa.scalar(None if one.method == rules.MAKER else one.method, pa.string()), n
            ),
        }  # fmt: skip
        schema = TABLES["verdicts"].schema
        arrays = [columns.get(f.name, pa.nulls(n, f.type)) for f in schema]
        parts.append(pa.table(arrays, schema=schema))
    return pa.concat_tables(parts)


# ---- the steps ---------------------------------------------------------------------------------


def _build_end(warehouse: Warehouse, folder: Path) -> dict[str, Any]:
    """What ends a build of some new questions, whose trees and traces are there."""
    trees = json.loads((folder / "new.json").read_text())
    run_id = "build-scale"

    async def end() -> int:
        changed = await filter_corpus(warehouse, run_id, TASK)
        await summarize(warehouse, TASK, trees)
        other_filters(warehouse, TASK, run_id, None)
        return changed

    return {"judged": asyncio.run(end())}


def _pass(warehouse: Warehouse, folder: Path) -> dict[str, Any]:
    """The second pass of curation alone, over new traces about images that are hashed."""
    start = time.perf_counter()
    changed = asyncio.run(filter_corpus(warehouse, "pass-scale", TASK))
    return {"judged": changed, "a_second": round(changed / (time.perf_counter() - start))}


def _curate(warehouse: Warehouse, folder: Path) -> dict[str, Any]:
    summary = asyncio.run(curate(CurateSettings(task=TASK, home=warehouse.root)))
    return {"kept": summary.kept}


def _publish(warehouse: Warehouse, folder: Path) -> dict[str, Any]:
    sql = "SELECT trace_id FROM traces WHERE origin = 'search'"
    return {"rows": publish(warehouse, "everything", sql).n_rows}


def _gallery(warehouse: Warehouse, folder: Path) -> dict[str, Any]:
    return {"traces": gallery(warehouse, folder / "gallery")[1]}


def _page(warehouse: Warehouse, folder: Path) -> dict[str, Any]:
    """A small gallery, its funnel counted and the code loaded by the one before."""
    gallery(warehouse, folder / "page", limit=PAGE)
    start = time.perf_counter()
    gallery(warehouse, folder / "page", limit=PAGE)
    return {"page_s": round(time.perf_counter() - start, 2)}


def _check(warehouse: Warehouse, folder: Path) -> dict[str, Any]:
    return {"wrong": sum(finding.wrong for finding in check(warehouse))}


def _import(warehouse: Warehouse, folder: Path) -> dict[str, Any]:
    report = import_questions(warehouse, TASK, folder / "new.parquet", split="train")
    return {"added": report.added}


STEPS: dict[str, Callable[[Warehouse, Path], dict[str, Any]]] = {
    "curate": _curate,
    "build's last step": _build_end,
    "publish": _publish,
    "gallery": _gallery,
    "page of a gallery": _page,
    "check": _check,
    "pass alone": _pass,  # behind those that its new traces would count for
    "import": _import,
}


def _measure(step: str, root: str, folder: Path) -> None:
    """Run one step and print what it took; the process ends with it."""
    start = time.perf_counter()
    found = STEPS[step](Warehouse(root), folder)
    seconds = time.perf_counter() - start
    every = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_s = sum(used.ru_utime + used.ru_stime for used in every)
    took = {"seconds": round(seconds, 1), "cpu_s": round(cpu_s, 1)}
    print(json.dumps({**took, "peak_mb": round(_peak() / 2**20), **found}))


def _peak() -> int:
    """Return the most bytes that this process has held.

    `ru_maxrss` would count the process that started it as well, which had filled the warehouse.
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _prepare(step: str, warehouse: Warehouse, folder: Path, new: int) -> None:
    """Make what a step needs, outside of what is measured."""
    if step == "build's last step":
        per_question = synthetic.TRACES_PER_TREE * synthetic.TREES_PER_QUESTION
        trees = fill(warehouse, NEW_QUESTIONS * per_question, seed=9, pictures=True)
        (folder / "new.json").write_text(json.dumps(trees))
    if step == "pass alone":
        fill(warehouse, new, seed=11)
    if step == "import":
        rows = [
            {
                "images": [{"bytes": _picture([1, i]), "path": None}],
                "question": f"Is the cup left of lamp {i}?", "answers": ["left", "right"],
                "correct_answer": "left", "question_type": "left_right",
            }
            for i in range(NEW_QUESTIONS)
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), folder / "new.parquet")


def measure(
    folder: Path, traces: int, known: dict[str, Any], steps: Sequence[str], new: int
) -> dict[str, Any]:
    """Measure the steps of one size that are not known yet, each in its own process.

    Args:
        new: traces of the pass alone.
    """
    place = folder / str(traces)
    place.mkdir(parents=True, exist_ok=True)
    warehouse = Warehouse(str(place / "warehouse"))
    # It is removed once what was asked for is measured.
    if "filled" not in known or not Path(warehouse.root).is_dir():
        shutil.rmtree(warehouse.root, ignore_errors=True)
        start = time.perf_counter()
        fill(warehouse, traces)
        fill_evaluation(warehouse)
        known["filled"] = {"seconds": round(time.perf_counter() - start, 1)}
        _note(folder, traces, known)
    for step in steps:
        if step in known:
            continue
        _prepare(step, warehouse, place, new)
        command = [sys.executable, "-m", "benchmarks.warehouse.scale", "--step", step]
        command += ["--root", warehouse.root, "--folder", str(place)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        known[step] = json.loads(done.stdout.splitlines()[-1])
        known[step]["load"] = round(os.getloadavg()[0], 1)
        _note(folder, traces, known)
        print(_line(traces, step, known[step]), flush=True)
    return known


def _note(folder: Path, traces: int, known: dict[str, Any]) -> None:
    file = folder / "scale.json"
    noted = json.loads(file.read_text()) if file.is_file() else {}
    noted[str(traces)] = known
    file.write_text(json.dumps(noted, indent=1) + "\n")


def _line(traces: int, step: str, found: dict[str, Any]) -> str:
    return (
        f"{traces:>12,} traces  {step:<18} {found['seconds']:>9.1f} s {found['cpu_s']:>9.1f} s of "
        f"processors {found['peak_mb']:>7,} MB"
        f"   load {found['load']}"
        + (f"   {found['a_second']:,} traces a second" if "a_second" in found else "")
        + (f"   {found['page_s']} s for {PAGE} traces" if "page_s" in found else "")
    )


def main(argv: list[str] | None = None) -> int:
    """Measure, print and note."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.warehouse.scale", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--sizes", default="10000,100000", help="numbers of traces, with commas")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-scale"))
    parser.add_argument("--steps", nargs="+", choices=STEPS, help="only these")
    parser.add_argument(
        "--new", type=int, default=160_000, help="traces of the pass alone, many enough that what "
        "begins and ends it counts for little"
    )  # fmt: skip
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.step:
        _measure(arguments.step, arguments.root, arguments.folder)
        return 0
    file = arguments.folder / "scale.json"
    for traces in map(int, arguments.sizes.split(",")):
        noted = json.loads(file.read_text()) if file.is_file() else {}
        known = noted.get(str(traces), {})
        for step in set(known) & set(STEPS):
            print(_line(traces, step, known[step]))
        measure(arguments.folder, traces, known, arguments.steps or list(STEPS), arguments.new)
        shutil.rmtree(arguments.folder / str(traces), ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
