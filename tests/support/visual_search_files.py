"""Small files of the benchmarks of visual search, each in the exact format it is published in.

The same kind of file as in `tests.support.benchmark_files`, whose examples they join.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.benchmark_files import (
    Example,
    Row,
    b64,
    image_file,
    lines,
    parquet,
    tsv,
    write_json,
)

HR_ROW: Row = {
    "index": 0, "question": "What's the number on the bus?", "answer": "B", "category": "single",
    "A": "12", "B": "21", "C": "112", "D": "211", "cycle_category": 0, "image": b64(1),
}  # fmt: skip
HR_TURNED: Row = {
    **HR_ROW, "index": 1, "answer": "A", "A": "21", "B": "112", "C": "211", "D": "12",
    "cycle_category": 1,
}  # fmt: skip
HR_CROSS: Row = {
    **HR_ROW, "index": 2, "question": "Which is nearer?", "answer": "D", "category": "cross",
    "A": "left", "B": "right", "C": "same", "D": "none", "cycle_category": "0", "image": b64(2),
}  # fmt: skip


def hr_bench(folder: Path) -> Path:
    """As on the hub: both sizes, each as Parquet and as TSV; the picture of 8K is another one."""
    folder.mkdir(exist_ok=True)
    large = [{**row, "image": b64(7)} for row in (HR_ROW, HR_TURNED)]
    for size, rows in (("4k", [HR_ROW, HR_TURNED]), ("8k", large)):
        tsv(folder / f"hr_bench_{size}.tsv", rows)
        parquet(folder / f"hr_bench_{size}.parquet", rows)
    return folder


def hr_bench_parquet(folder: Path) -> Path:
    return hr_bench(folder) / "hr_bench_4k.parquet"


def hr_bench_tsv(folder: Path) -> Path:
    return tsv(folder / "HRBench8K.tsv", [HR_ROW, HR_TURNED, HR_CROSS])


PROBE_ROW: Row = {
    "images": ["VisualProbe_Hard/data/visual_probe_hard_0.png"], "doc_id": "visual_probe_hard_0",
    "problem": "<image>\nWhat word is on the blue sign?", "solution": "Bakery.",
    "data_source": "visual_probe_hard",
}  # fmt: skip
PROBE_EASY: Row = {
    **PROBE_ROW, "images": ["VisualProbe_Easy/data/visual_probe_easy_3.png"],
    "doc_id": "visual_probe_easy_3", "data_source": "visual_probe_easy", "solution": "3",
    "problem": "<image>\nHow many birds sit on the roof?",
}  # fmt: skip


def visual_probe(folder: Path) -> Path:
    """The folder that holds the downloads, each named as its set."""
    for row in (PROBE_ROW, PROBE_EASY):
        image_file(folder, row["images"][0], len(row["doc_id"]))
        write_json(folder / row["images"][0].partition("/")[0] / "val.json", [row])
    return folder


def visual_probe_alone(folder: Path) -> Path:
    """One download in a folder of another name, as the hub's cache has it."""
    image_file(folder, "data/visual_probe_hard_0.png", 1)
    return lines(folder / "val.jsonl", [PROBE_ROW])


TREE_ROW: Row = {
    "index": 0, "question": "What is the man on the left bench holding?", "answer": "C",
    "multi-choice options": "A. a book\nB. a cup\nC. a phone\nD. nothing\n",
    "A": "a book", "B": "a cup", "C": "a phone", "D": "nothing", "E": "",
    "category": "Perception/Attributes", "target_instances": "[[20, 30, 44, 52], [60, 10, 70, 20]]",
    "image": b64(1),
}  # fmt: skip
TREE_LISTED: Row = {
    **TREE_ROW, "index": 1, "category": "Perception/OCR", "answer": "B", "image": b64(2),
    "question": "Which word is on the van? Options: A. POST, B. MAIL, C. FOOD, D. NEWS",
    "multi-choice options": "", "A": "", "B": "", "C": "", "D": "", "target_instances": "[]",
}  # fmt: skip


def tree_bench(folder: Path) -> Path:
    return tsv(folder / "TreeBench.tsv", [TREE_ROW, TREE_LISTED])


def tree_bench_parquet(folder: Path) -> Path:
    """Without columns of letters, where the lettered lines are all there is."""
    row = {name: value for name, value in TREE_ROW.items() if len(name) > 1}
    return parquet(folder / "0000.parquet", [row])


_NUMBERS = ("12", "21", "112", "211")
_HELD = ("a book", "a cup", "a phone", "nothing")
SEARCH_EXAMPLES = (
    Example("hr-bench-4k", hr_bench_parquet, 2, "test", "B", "A", "What's the number", "single",
            _NUMBERS),
    Example("hr-bench-8k", hr_bench_tsv, 3, "test", "21", "12", "What's the number", "single",
            _NUMBERS),
    Example("visual-probe", visual_probe, 2, "validation", "bakery", "bank", "What word is",
            "hard"),
    Example("visual-probe", visual_probe_alone, 1, "validation", "Bakery", "the bakery",
            "What word is", "hard"),
    Example("tree-bench", tree_bench, 2, "test", "C", "a cup", "What is the man",
            "Perception/Attributes", _HELD),
    Example("tree-bench", tree_bench_parquet, 1, "test", "a phone", "A", "What is the man",
            "Perception/Attributes", _HELD),
)  # fmt: skip
