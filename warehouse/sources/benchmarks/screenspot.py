"""ScreenSpot, ScreenSpot-v2 and ScreenSpot-Pro: where on a screen is what an instruction names.

Schemas:

- ScreenSpot (github.com/njucckevin/SeeClick) and ScreenSpot-v2 (OS-Copilot/ScreenSpot-v2): JSON,
  one array a platform, with `img_filename`, `bbox` as [left, top, width, height] in pixels,
  `instruction`, `data_type` (text or icon), `data_source` (ios, android, macos, windows, or a kind
  of web site). Images lie in `screenspot_imgs/` or `screenspotv2_image/`.
- rootsautomation/ScreenSpot (dataset card): the same in Parquet with `image` and `file_name`, and
  `bbox` as [left, top, right, bottom] in *shares* of width and height.
- ScreenSpot-Pro (likaixin/ScreenSpot-Pro; loader in VLMEvalKit, vlmeval/dataset/GUI): JSON, one
  array an application, with `img_filename`, `bbox` as [left, top, right, bottom] in pixels of
  `img_size`, `instruction`, `ui_type` (text or icon), `application`, `platform`, `group` (Dev,
  Creative, CAD, Scientific, Office, OS). Images lie in `images/`. Where an image has been
  resized, its box is resized with it, if the shape is the same.
- VLMEvalKit's TSV files have `image` in base64, `question` for the instruction, and the first or
  third format's `bbox` as text.

A point in the box is right, its edges included. Published metrics: accuracy; by platform (Pro: by
group) and type, and the mean of those cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mcts.data import AnswerKind
from mcts.zoom.lenses import WEB_LENS
from warehouse.sources.published import Row, published
from warehouse.sources.reading.boxes import BoxFormat, gold_box
from warehouse.sources.reading.drafts import Draft, DraftImage, Unusable
from warehouse.sources.reading.image_files import image_size
from warehouse.sources.reading.literals import read_float
from warehouse.sources.reading.tabular import TYPED, suffix_of
from warehouse.sources.tasks import Task

PLATFORMS = {
    **dict.fromkeys(("ios", "android", "mobile"), "mobile"),
    **dict.fromkeys(("macos", "windows", "pc", "desktop"), "desktop"),
    **dict.fromkeys(("web", "shop", "tool", "forum", "gitlab"), "web"),
}
GROUPS = ("Dev", "Creative", "CAD", "Scientific", "Office", "OS")
_GROUP_NAMES = {**{group.casefold(): group for group in GROUPS}, "development": "Dev"}
_TYPES = ("text", "icon")
_SAME_SHAPE = 0.01  # most by which two shapes may differ, as a share


def _platform_draft(row: Row) -> Draft:
    where = row.text("data_source", "platform").casefold()
    if where not in PLATFORMS:
        raise Unusable("data_source", f"no platform is known for {where!r}")
    image, size = _image(row)
    values = row.items("bbox")
    box_format = BoxFormat.SHARES if suffix_of(row.file) in TYPED else BoxFormat.XYWH
    return _box_draft(row, image, values, box_format, size, f"{PLATFORMS[where]}/{_type(row)}")


def _pro_draft(row: Row) -> Draft:
    group = _GROUP_NAMES.get(row.text("group", "category").casefold())
    if group is None:
        raise Unusable("group", f"it is one of {', '.join(GROUPS)}, not {row.get('group')!r}")
    image, size = _image(row)
    stated = row.items("img_size")
    measured = size
    if stated:
        if len(stated) != 2 or not all(1 <= read_float(side) < math.inf for side in stated):
            raise Unusable("img_size", f"it is width and height, not {stated!r:.60}")
        measured = (int(read_float(stated[0])), int(read_float(stated[1])))
        if abs(measured[0] / measured[1] / (size[0] / size[1]) - 1) > _SAME_SHAPE:
            reason = f"the image is {size[0]}x{size[1]}, not {measured[0]}x{measured[1]}"
            raise Unusable("img_size", reason)
    values = row.items("bbox")
    if measured != size and len(values) == 4:
        box = gold_box(values, BoxFormat.XYXY, measured)
        across, down = size[0] / measured[0], size[1] / measured[1]
        values = [box.x1 * across, box.y1 * down, box.x2 * across, box.y2 * down]
    return _box_draft(row, image, values, BoxFormat.XYXY, size, f"{group}/{_type(row)}")


def _type(row: Row) -> str:
    found = row.text("data_type", "ui_type").casefold()
    if found not in _TYPES:
        raise Unusable("data_type", f"it is text or icon, not {found!r}")
    return found


def _image(row: Row) -> tuple[DraftImage, tuple[int, int]]:
    image = row.image("image", "img_filename")
    return image, image_size(image.data)


def _box_draft(
    row: Row,
    image: DraftImage,
    values: list[object],
    box_format: BoxFormat,
    size: tuple[int, int],
    family: str,
) -> Draft:
    return row.draft(
        row.text("instruction", "question"),
        [image],
        answer_kind=AnswerKind.BOX,
        boxes=(gold_box(values, box_format, size),),
        family=family,
    )


def _task(name: str, title: str, source: str, draft: Callable[[Row], Draft], *kind: str) -> Task:
    return Task(
        name,
        title,
        published(
            source,
            draft,
            ("bbox", "instruction|question", "image|img_filename", *kind),
            folders=("screenspot_imgs", "screenspotv2_image", "images"),
            licence="" if name == "screenspot-pro" else "Apache-2.0",
        ),
        kind=AnswerKind.BOX,
        prompt="web-grounding",
        split="test",
        metrics=("by_family", "by_halves"),
        counts_by=("family",),
        lens=WEB_LENS,
    )


_FORMATS = "(JSON with images beside it, Parquet, or VLMEvalKit's TSV)"
_KIND = ("data_type|ui_type", "data_source|platform")
TASKS = (
    _task("screenspot", f"ScreenSpot: targets on screens {_FORMATS}", "ScreenSpot",
          _platform_draft, *_KIND),
    _task("screenspot-v2", f"ScreenSpot-v2: the same, corrected {_FORMATS}", "ScreenSpot-v2",
          _platform_draft, *_KIND),
    _task("screenspot-pro", f"ScreenSpot-Pro: small targets on large screens {_FORMATS}",
          "ScreenSpot-Pro", _pro_draft, "ui_type|data_type", "group|category"),
)  # fmt: skip
