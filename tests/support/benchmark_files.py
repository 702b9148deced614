"""Small files in the exact published format of every benchmark, with pictures drawn on the spot.

for example in EXAMPLES:
    path = example.write(folder)             # the file or folder a user would name
    import_questions(warehouse, example.task, path)
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mcts.data import Box
from tests.support.sat_files import picture

SIZE = (200, 100)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

Row = dict[str, Any]


def drawn(seed: int, size: tuple[int, int] = SIZE) -> bytes:
    return picture(seed, size=size)


def stored(seed: int, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """A picture as Hugging Face's Parquet holds it."""
    return {"bytes": drawn(seed, size), "path": f"{seed}.png"}


def parquet(path: Path, rows: Sequence[Row], **types: pa.DataType) -> Path:
    """Rows as Parquet; columns whose every value is a picture, or null, get the image struct."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(rows[0])
    arrays = []
    for name in names:
        values = [row[name] for row in rows]
        shown = [v for v in values if v is not None]
        is_image = shown and all(isinstance(v, dict) and "bytes" in v for v in shown)
        kind = types.get(name) or (IMAGE if is_image else None)
        arrays.append(pa.array(values, kind))
    pq.write_table(pa.table(arrays, names), path)
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return path


def lines(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tsv(path: Path, rows: Sequence[Row]) -> Path:
    """As VLMEvalKit ships: pictures in base64."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        table = csv.DictWriter(handle, list(rows[0]), delimiter="\t")
        table.writeheader()
        table.writerows(rows)
    return path


def image_file(folder: Path, name: str, seed: int, size: tuple[int, int] = SIZE) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(drawn(seed, size))
    return path


def b64(seed: int) -> str:
    return base64.b64encode(drawn(seed)).decode()


# ---- one function a published form ----------------------------------------------------------


BLINK_ROW: Row = {
    "idx": "val_Jigsaw_1", "question": "Which image is the missing part?", "sub_task": "Jigsaw",
    "image_1": stored(1), "image_2": stored(2), "image_3": stored(3), "image_4": None,
    "choices": ["the second image", "the third image"], "answer": "(B)",
    "prompt": "Given the first image …", "explanation": "",
}  # fmt: skip


def blink(folder: Path) -> Path:
    depth = {**BLINK_ROW, "question": "Which point is closer to the camera?",
             "sub_task": "Relative_Depth", "image_2": None, "image_3": None,
             "choices": ["A is closer", "B is closer"], "answer": "(A)"}  # fmt: skip
    told = "Given the first image with one part missing, which one is it?\nSelect from the "
    jigsaw = {**BLINK_ROW, "prompt": f"{told}following choices.\n(A) the second image\n(B) …"}
    parquet(folder / "Jigsaw" / "val-00000-of-00001.parquet", [jigsaw], image_4=IMAGE)
    return parquet(
        folder / "Relative_Depth" / "val-00000-of-00001.parquet", [depth],
        image_2=IMAGE, image_3=IMAGE, image_4=IMAGE,
    ).parent.parent  # fmt: skip


def blink_tsv(folder: Path) -> Path:
    row = {"index": 0, "image": str([b64(1), b64(2), b64(3)]), "question": "Which is missing?",
           "A": "the second image", "B": "the third image", "answer": "B",
           "category": "Jigsaw"}  # fmt: skip
    alone = {**row, "index": 1, "image": b64(4), "category": "Counting", "A": "0", "B": "3",
             "answer": "A", "question": "How many cups?"}  # fmt: skip
    return tsv(folder / "BLINK.tsv", [row, alone])


ROBOSPATIAL_ROWS: list[Row] = [
    {"category": "configuration", "question": "Is the cup left of the lamp?", "answer": "Yes",
     "img": stored(1), "depth_image": stored(2), "mask": None},
    {"category": "context", "question": "In the image, there is a desk. Pinpoint several points in "
     "the free space left of the desk. Your answer should be formatted as a list of tuples, i.e. "
     "[(x1, y1), (x2, y2), ...], between 0 and 1.",
     "answer": "[(0.1, 0.2), (0.5, 0.2), (0.5, 0.6), (0.1, 0.6)]",
     "img": stored(3), "depth_image": stored(2), "mask": stored(4)},
]  # fmt: skip


def robospatial(folder: Path) -> Path:
    return parquet(folder / "configuration-00000-of-00001.parquet", ROBOSPATIAL_ROWS)


def robospatial_json(folder: Path) -> Path:
    image_file(folder, "images/img_0.png", 1)
    row = {"question": "Can the cup fit left of the lamp?", "answer": "no",
           "category": "compatibility", "img": "images/img_0.png"}  # fmt: skip
    return write_json(folder / "annotations_robospatial.json", [row])


VSTAR_ROW: Row = {
    "image": "direct_attributes/sa_4690.png", "category": "direct_attributes", "label": "B",
    "text": "What is the color of the glove?\n(A) red\n(B) blue\nAnswer with the option's letter "
    "from the given choices directly.", "question_id": 0,
}  # fmt: skip


def vstar_bench(folder: Path) -> Path:
    image_file(folder, "direct_attributes/sa_4690.png", 1)
    image_file(folder, "relative_position/sa_2.png", 2)
    beside = {"target_object": ["glove"], "bbox": [[20, 30, 10, 12]], "question": "?",
              "options": ["blue", "red"]}  # fmt: skip
    write_json(folder / "direct_attributes" / "sa_4690.json", beside)
    other = {**VSTAR_ROW, "image": "relative_position/sa_2.png", "category": "relative_position",
             "text": "Is the dog left or right of the cat?\n(A) left\n(B) right\n(C) above",
             "label": "C", "question_id": 1}  # fmt: skip
    return lines(folder / "test_questions.jsonl", [VSTAR_ROW, other])


def vstar_parquet(folder: Path) -> Path:
    row = {**VSTAR_ROW, "image": stored(1), "question_id": "0"}
    return parquet(folder / "test-00000-of-00001.parquet", [row])


def vstar_tsv(folder: Path) -> Path:
    row = {"index": 0, "image": b64(1), "question": "What color is it?", "A": "red", "B": "blue",
           "C": "", "answer": "B", "category": "direct_attributes"}  # fmt: skip
    return tsv(folder / "VStarBench.tsv", [row])


SCREEN_ROW: Row = {
    "img_filename": "web_1.png", "bbox": [42, 10, 60, 20],
    "instruction": "view the details of the item", "data_type": "text", "data_source": "shop",
}  # fmt: skip


def screenspot(folder: Path) -> Path:
    image_file(folder, "screenspot_imgs/web_1.png", 1)
    icon = {**SCREEN_ROW, "bbox": [-1, 0, 20, 10], "data_type": "icon",
            "instruction": "view the previous photo"}  # fmt: skip
    return write_json(folder / "screenspot_web.json", [SCREEN_ROW, icon])


def screenspot_parquet(folder: Path) -> Path:
    row = {"file_name": "mobile_1.png", "bbox": [0.1, 0.2, 0.3, 0.4], "instruction": "open it",
           "data_type": "icon", "data_source": "ios", "image": stored(1)}  # fmt: skip
    return parquet(folder / "test-00000-of-00001.parquet", [row])


def screenspot_v2(folder: Path) -> Path:
    image_file(folder, "screenspotv2_image/pc_1.png", 1)
    row = {**SCREEN_ROW, "img_filename": "pc_1.png", "data_source": "windows"}
    return write_json(folder / "screenspot_desktop_v2.json", [row])


def screenspot_v2_tsv(folder: Path) -> Path:
    rows = [
        {"index": 5, "image": b64(1), "image_path": "a.png", "question": "open it",
         "bbox": "[42, 10, 60, 20]", "data_type": "text", "data_source": "android"},
        {"index": 6, "image": "5", "image_path": "a.png", "question": "close it",
         "bbox": "[2, 10, 6, 20]", "data_type": "icon", "data_source": "android"},
    ]  # fmt: skip
    return tsv(folder / "ScreenSpot_v2_Mobile.tsv", rows)


PRO_ROW: Row = {
    "img_filename": "blender_windows/screenshot_1.png", "bbox": [42, 10, 60, 20],
    "instruction": "select the brush", "instruction_cn": "", "id": "blender_windows_0",
    "application": "blender", "platform": "windows", "img_size": [200, 100], "ui_type": "icon",
    "group": "Creative",
}  # fmt: skip


def screenspot_pro(folder: Path) -> Path:
    image_file(folder, "images/blender_windows/screenshot_1.png", 1)
    image_file(folder, "images/blender_windows/half.png", 2, (100, 50))
    resized = {**PRO_ROW, "img_filename": "blender_windows/half.png", "ui_type": "text",
               "instruction": "open the menu"}  # fmt: skip
    return write_json(folder / "annotations" / "blender_windows.json", [PRO_ROW, resized])


ATLAS_ROWS: list[Row] = [
    {"img_filename": "a/1.png", "elements": [
        {"instruction": "Save", "bbox": [0.1, 0.2, 0.3, 0.4], "data_type": "button"},
        {"instruction": "Open file", "bbox": [0.5, 0.2, 0.7, 0.4], "data_type": "menu"},
    ]},
    {"img_filename": "a/2.png", "instruction": "Close", "bbox": [0.0, 0.0, 1.002, 0.5]},
]  # fmt: skip


def os_atlas(folder: Path) -> Path:
    image_file(folder, "desktop_domain/a/1.png", 1)
    image_file(folder, "desktop_domain/a/2.png", 2)
    return write_json(folder / "desktop_domain" / "linux_splited.json", ATLAS_ROWS)


def ical_example(action: str, name: str) -> list[Any]:
    shown = (
        "OBJECTIVE: Find the cheapest red car.\n\nOBSERVATION:\n [17] [A] [Cars + trucks]\n"
        " [] [StaticText] [12.00 $]\n\nPREVIOUS ACTIONS: \n1. click [A] [Search]\n\n"
        "ABSTRACTION COMMENTS:\n1. - Sort by price."
    )
    thought = (
        f"Plan: I look.\n\nAction: In summary, the next action I will perform is ```{action}```"
    )
    return [shown, thought, name, ["- Sort by price."], 1]


def ical(folder: Path) -> Path:
    image_file(folder, "images/classifieds_1/0.png", 1)
    image_file(folder, "images/classifieds_1/1.png", 2)
    examples = [
        ical_example("click [17]", "./data/human_demos/images/classifieds_1/0.png"),
        ical_example("type [6] [red car]", "./data/human_demos/images/classifieds_1/1.png"),
    ]
    return write_json(folder / "planning_examples.json", {"examples": examples})


VWA_ROW: Row = {
    "sites": ["classifieds"], "task_id": 10, "require_login": True, "storage_state": None,
    "start_url": "__CLASSIFIEDS__", "geolocation": None, "intent_template": "What is {{x}}?",
    "intent": "What is the seat height in inches of the smaller piece on this page?",
    "image": None, "instantiation_dict": {}, "require_reset": False,
    "eval": {"eval_types": ["string_match"], "reference_answers": {"exact_match": "21"},
             "reference_url": "", "program_html": [], "string_note": ""},
    "reasoning_difficulty": "easy", "visual_difficulty": "easy", "overall_difficulty": "easy",
}  # fmt: skip


def visualwebarena(folder: Path) -> Path:
    image_file(folder, "classifieds_10.png", 1)
    image_file(folder, "classifieds_11.png", 2)
    image_file(folder, "input_0.png", 3)
    included = {"eval_types": ["string_match"],
                "reference_answers": {"must_include": ["$25.50 |OR| 25.50"]}}  # fmt: skip
    other = {**VWA_ROW, "task_id": 11, "intent": "What does this cost?", "eval": included,
             "image": ["http://shop.example/task_11/input_0.png"]}  # fmt: skip
    return write_json(folder / "test_classifieds.json", [VWA_ROW, other])


POPE_ROW: Row = {
    "id": "0", "question_id": "1", "question": "Is there a snowboard in the image?",
    "answer": "yes", "image_source": "COCO_val2014_000000310196", "image": stored(1),
    "category": "adversarial",
}  # fmt: skip


def pope(folder: Path) -> Path:
    no = {**POPE_ROW, "question": "Is there a dog in the image?", "answer": "no"}
    return parquet(folder / "adversarial-00000-of-00001.parquet", [POPE_ROW, no])


def pope_lines(folder: Path) -> Path:
    image_file(folder, "val2014/COCO_val2014_1.png", 1)
    row = {"question_id": 1, "image": "COCO_val2014_1.png", "text": "Is there a dog in the image?",
           "label": "no"}  # fmt: skip
    return lines(folder / "coco_pope_random.json", [row, {**row, "text": "Is there a cat?"}])


def pope_tsv(folder: Path) -> Path:
    row = {"index": "0", "image": b64(1), "question": "Is there a dog?", "answer": "No",
           "category": "popular"}  # fmt: skip
    again = {**row, "index": "1", "image": "0", "question": "Is there a cat?", "answer": "Yes"}
    return tsv(folder / "POPE.tsv", [row, again])


GQA_ROW: Row = {
    "id": "201307251", "imageId": "n161313", "question": "Is it overcast?", "answer": "no",
    "fullAnswer": "No, it is clear.", "isBalanced": True, "groups": {"global": "", "local": ""},
    "types": {"structural": "verify", "semantic": "attr", "detailed": "weatherVerify"},
}  # fmt: skip


def gqa(folder: Path) -> Path:
    free = {**GQA_ROW, "id": "2", "imageId": "n2", "question": "Who is wearing the shirt?",
            "answer": "girl"}  # fmt: skip
    parquet(
        folder / "testdev_balanced_instructions" / "testdev-00000-of-00001.parquet",
        [GQA_ROW, free],
    )
    pictures = [{"id": "n161313", "image": stored(1)}, {"id": "n2", "image": stored(2)}]
    parquet(folder / "testdev_balanced_images" / "testdev-00000-of-00001.parquet", pictures)
    return folder


def gqa_json(folder: Path) -> Path:
    image_file(folder, "images/n161313.jpg", 1)
    row = {key: value for key, value in GQA_ROW.items() if key != "id"}
    return write_json(folder / "testdev_balanced_questions.json", {"201307251": row})


AI2D_ROW: Row = {
    "question": "Which stage comes after the egg?", "answer": "1", "image": stored(1),
    "options": ["adult", "larva", "Pupa", "pupa"],
}  # fmt: skip


def ai2d(folder: Path) -> Path:
    cased = {**AI2D_ROW, "question": "Which letter shows the pupa?", "answer": "3"}
    return parquet(folder / "test-00000-of-00001.parquet", [AI2D_ROW, cased])


def ai2d_tsv(folder: Path) -> Path:
    row = {"index": 0, "image": b64(1), "question": "Which letter is the root?", "A": "C",
           "B": "A", "C": "B", "D": "D", "answer": "B", "category": "ai2d"}  # fmt: skip
    return tsv(folder / "AI2D_TEST.tsv", [row])


REAL_ROWS: list[Row] = [
    {"image": stored(1), "answer": "C", "question": "In which direction is the car facing?\n\n"
     "A. Left\nB. Right\nC. Away\nPlease answer directly with only the letter of the correct "
     "option and nothing else."},
    {"image": stored(2), "answer": "3", "question": "How many cars are there?\n"
     "Please answer directly with a single word or number."},
    {"image": stored(3), "answer": "Yes", "question": "Is the light green?\n"
     "Please answer directly with a single word or number."},
]  # fmt: skip


def realworldqa(folder: Path) -> Path:
    return parquet(folder / "test-00000-of-00002.parquet", REAL_ROWS)


MATH_ROWS: list[Row] = [
    {"id": "1", "question": "Which part is shaded?\n<image1>", "options": ["A", "B", "C"],
     "image": "images/1.jpg", "decoded_image": stored(1), "answer": "B", "solution": None,
     "level": 2, "subject": "counting"},
    {"id": "2", "question": "What share is shaded? <image1>", "options": [],
     "image": "images/2.jpg", "decoded_image": stored(2), "answer": "\\frac{1}{2}",
     "solution": None, "level": 5, "subject": "algebra"},
]  # fmt: skip


def mathvision(folder: Path) -> Path:
    return parquet(
        folder / "test-00000-of-00001-3532b8d3f1b4047a.parquet", MATH_ROWS,
        solution=pa.string(), options=pa.list_(pa.string()),
    )  # fmt: skip


def wemath_rows(problem: str = "2steps_1", keys: Sequence[str] = ("1", "2", "multi")) -> list[Row]:
    return [
        {"ID": problem, "split": "testmini", "knowledge concept": "Area", "answer": "B",
         "question": f"What is the area in part {key}?", "key": f"{problem.split('_')[0]}_{key}",
         "option": "A. 5 cm;B. 6.5 cm; C. 7; D. No correct answer",
         "image_path": f"2steps/image/1-{key}.png", "question number": 1575,
         "knowledge concept description": "Area of …"}
        for key in keys
    ]  # fmt: skip


def wemath(folder: Path) -> Path:
    rows = wemath_rows()
    for i, row in enumerate(rows):
        image_file(folder / "data", row["image_path"], i)
    return write_json(folder / "data" / "testmini.json", rows)


MMMU_ROWS: list[Row] = [
    {"id": "validation_Accounting_1", "question": "<image 1> Baxter has shares as in <image 2>. "
     "What is the yield?", "options": "['$6', '$7', '<image 2>']", "explanation": "",
     "image_1": stored(1), "image_2": stored(2), "image_3": None, "img_type": "['Tables']",
     "answer": "B", "topic_difficulty": "Medium", "question_type": "multiple-choice",
     "subfield": "Managerial"},
    {"id": "validation_Math_3", "question": "What share is it? <image 1>", "options": "[]",
     "explanation": "", "image_1": stored(3), "image_2": None, "image_3": None,
     "img_type": "['Plots']", "answer": "['24/7', '3.429']", "topic_difficulty": "Easy",
     "question_type": "open", "subfield": "Calculus"},
]  # fmt: skip


def mmmu(folder: Path) -> Path:
    return parquet(
        folder / "Accounting" / "validation-00000-of-00001.parquet", MMMU_ROWS, image_3=IMAGE
    )


def mmmu_tsv(folder: Path) -> Path:
    row = {"index": 1, "image": b64(1), "question": "<image 1> What is it?", "A": "a", "B": "b",
           "answer": "A", "category": "Art", "split": "validation"}  # fmt: skip
    return tsv(folder / "MMMU_DEV_VAL.tsv", [row])


@dataclass(frozen=True)
class Example:
    """A file in one published form, and what its first question is read as."""

    task: str
    write: Callable[[Path], Path]
    count: int
    split: str
    gold: str
    """A right answer to the question that `text` begins."""
    wrong: str
    text: str
    family: str
    choices: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    n_images: int = 1
    image_root: str = ""


EXAMPLES = (
    Example("blink", blink, 2, "validation", "(B)", "(A)", "Given the first image", "Jigsaw",
            ("the second image", "the third image"), n_images=3),
    Example("blink", blink_tsv, 2, "validation", "the third image", "A", "Which is", "Jigsaw",
            ("the second image", "the third image"), n_images=3),
    Example("robospatial", robospatial, 2, "test", "yes", "no", "Is the cup", "configuration",
            ("yes", "no")),
    Example("robospatial", robospatial_json, 1, "test", "no", "no idea", "Can the cup",
            "compatibility", ("yes", "no")),
    Example("vstar-bench", vstar_bench, 2, "test", "blue", "red", "What is the color",
            "direct_attributes", ("red", "blue")),
    Example("vstar-bench", vstar_parquet, 1, "test", "B", "A", "What is the color",
            "direct_attributes", ("red", "blue")),
    Example("vstar-bench", vstar_tsv, 1, "test", "B", "A", "What color", "direct_attributes",
            ("red", "blue")),
    Example("screenspot", screenspot, 2, "test", "(102, 30)", "(103, 30)", "view the details",
            "web/text", boxes=(Box(42, 10, 102, 30),)),
    Example("screenspot", screenspot_parquet, 1, "test", "(20, 20)", "(19, 20)", "open it",
            "mobile/icon", boxes=(Box(20, 20, 60, 40),)),
    Example("screenspot-v2", screenspot_v2, 1, "test", "(42, 10)", "(42, 9)", "view the",
            "desktop/text", boxes=(Box(42, 10, 102, 30),)),
    Example("screenspot-v2", screenspot_v2_tsv, 2, "test", "(50, 20)", "(1, 1)", "open it",
            "mobile/text", boxes=(Box(42, 10, 102, 30),)),
    Example("screenspot-pro", screenspot_pro, 2, "test", "(50, 15)", "(61, 15)", "select the",
            "Creative/icon", boxes=(Box(42, 10, 60, 20),)),
    Example("web-grounding", os_atlas, 3, "train", "(30, 30)", "(110, 30)", "Save", "desktop",
            boxes=(Box(20, 20, 60, 40, label="Save"),)),
    Example("web-action", ical, 2, "train", "click [17]", "click [1]", "OBJECTIVE: Find", "click"),
    Example("visualwebarena", visualwebarena, 2, "test", "stop [21]", "stop [2]",
            "OBJECTIVE: What is the seat", "classifieds"),
    Example("visualwebarena", ical, 2, "test", "click [17]", "hover [17]", "OBJECTIVE: Find",
            "click"),
    Example("pope", pope, 2, "test", "Yes.", "no", "Is there a snow", "adversarial", ("yes", "no")),
    Example("pope", pope_lines, 2, "test", "no", "yes", "Is there a dog", "random", ("yes", "no")),
    Example("pope", pope_tsv, 2, "test", "no", "not", "Is there a dog", "popular", ("yes", "no")),
    Example("gqa", gqa, 2, "test", "No", "yes", "Is it overcast?", "verify"),
    Example("gqa", gqa_json, 1, "test", "no", "none", "Is it overcast?", "verify"),
    Example("ai2d", ai2d, 2, "test", "larva", "adult", "Which stage", "",
            ("adult", "larva", "Pupa", "pupa")),
    Example("ai2d", ai2d_tsv, 1, "test", "A", "B", "Which letter", "", ("C", "A", "B", "D")),
    Example("realworldqa", realworldqa, 3, "test", "away", "A", "In which", "options",
            ("Left", "Right", "Away")),
    Example("mathvision", mathvision, 2, "test", "B", "C", "Which part", "counting",
            ("A", "B", "C")),
    Example("wemath", wemath, 3, "validation", "6.5 cm", "C", "What is the area in part 1?",
            "2steps_1", ("5 cm", "6.5 cm", "7", "No correct answer")),
    Example("mmmu", mmmu, 2, "validation", "$7", "C", "(image 1) Baxter has shares as in (image 2)",
            "Accounting", ("$6", "$7", "(image 2)"), n_images=2),
    Example("mmmu", mmmu_tsv, 1, "validation", "A", "B", "(image 1) What is it?", "Art",
            ("a", "b")),
)  # fmt: skip
