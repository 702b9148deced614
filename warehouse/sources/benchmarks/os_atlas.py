"""OS-Atlas: elements of desktop, mobile and web screens with the words that name them.

Schema (dataset card of OS-Copilot/OS-Atlas-data): JSON below `desktop_domain/`, `mobile_domain/`
and `web_domain/`, one array a part. A row has `img_filename` and either `instruction`, `bbox` and
perhaps `data_type` itself, or a list `elements` of them. `bbox` is [left, top, right, bottom] in
shares of width and height. The images are in ZIP files beside it; unpacked, their folder is the
image root.

Every element becomes a question. Where a row lists a screen's elements, they also become the
image's objects, so that a step which names one can be held against its box.
"""

from __future__ import annotations

from collections.abc import Iterator

from mcts.data import AnswerKind, Box
from warehouse.sources.published import Row, published
from warehouse.sources.reading.boxes import BoxFormat, gold_box
from warehouse.sources.reading.drafts import Draft, DraftImage, Unusable
from warehouse.sources.reading.image_files import image_size

DOMAINS = ("desktop", "mobile", "web")


def _drafts(row: Row) -> Iterator[Draft | Unusable]:
    data = row.image("img_filename").data
    size = image_size(data, "img_filename")
    elements = row.items("elements") if "elements" in row.values else [row.values]
    found: list[tuple[str, Box]] = []
    for i, element in enumerate(elements, start=1):
        at = f"elements[{i}]." if "elements" in row.values else ""
        try:
            found.append(_element(row, element, size, at))
        except Unusable as problem:
            yield problem
    objects = tuple(box for _, box in found) if "elements" in row.values else None
    domain = next((d for d in DOMAINS if f"{d}_domain" in str(row.file)), "")
    for instruction, box in found:
        yield row.draft(
            instruction,
            [DraftImage(data, objects)],
            answer_kind=AnswerKind.BOX,
            boxes=(box,),
            family=domain,
        )
    if not elements:
        yield Unusable("elements", "the screen has no element")


def _element(row: Row, element: object, size: tuple[int, int], at: str) -> tuple[str, Box]:
    if not isinstance(element, dict):
        raise Unusable(at.rstrip("."), "it is no object")
    one = Row(row.file, row.number, element, row.files)
    instruction = one.optional("instruction")
    if not instruction:
        raise Unusable(f"{at}instruction", "there is no instruction")
    values = element.get("bbox")
    if not isinstance(values, list):
        raise Unusable(f"{at}bbox", "there is no box")
    return instruction, gold_box(values, BoxFormat.SHARES, size, f"{at}bbox", label=instruction)


FORMATS = published(
    "OS-Atlas", _drafts, ("img_filename", "elements|instruction"), suffixes=(".json",),
    licence="Apache-2.0",
)  # fmt: skip
