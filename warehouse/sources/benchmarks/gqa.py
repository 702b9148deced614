"""GQA: compositional questions about scenes, answered in a word or two.

Schema: lmms-lab/GQA (dataset card; loader in lmms-eval, lmms_eval/tasks/gqa) keeps questions and
images apart: `testdev_balanced_instructions/*.parquet` has `id, imageId, question, answer,
fullAnswer, types{structural, semantic, detailed}, …` and `testdev_balanced_images/*.parquet` has
`id, image`. The authors' JSON (cs.stanford.edu/people/dorarad/gqa, testdev_balanced_questions.json)
maps an id to the same fields, and its images are `images/IMAGEID.jpg`. VLMEvalKit's TSV has
`image, question, answer`.

Images in Parquet are looked for in the folder beside that says `images` instead of
`instructions`, or below the image root; they are copied once into a temporary file, so that a
question finds its own without all of them in memory. Published metric: accuracy, exact match.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from warehouse.sources.published import Row, Spool, column_names, published
from warehouse.sources.reading.drafts import (
    Draft,
    DraftImage,
    ImportProblem,
    ReadContext,
    Reject,
    Unusable,
)
from warehouse.sources.reading.image_files import ImageFiles
from warehouse.sources.reading.tabular import read_rows
from warehouse.sources.tasks import Task


def _draft(row: Row) -> Draft:
    if row.get("image") is not None:
        return _question_draft(row, row.image("image"))
    name = f"{row.text('imageId')}.jpg"
    return _question_draft(row, DraftImage(row.files.get(name, "imageId")))


def _question_draft(row: Row, image: DraftImage) -> Draft:
    kinds = row.get("types")
    family = kinds.get("structural") if isinstance(kinds, dict) else None
    return row.draft(
        row.text("question"), [image], answers=(row.answer(),), family=str(family or "")
    )


def _read_parquet(file: Path, context: ReadContext) -> Iterator[Draft | Reject]:
    """Questions of one Parquet file, with the images of the files beside it."""
    names = column_names(file)
    if "question" not in names and {"id", "image"} <= set(names):
        return  # a file of images
    if "image" in names:
        yield from _FORMATS[".parquet"](file, context)
        return
    if missing := {"imageId", "question", "answer"} - set(names):
        raise ImportProblem(f"{file} is not GQA: it has no column {', '.join(sorted(missing))}")
    with tempfile.TemporaryFile() as handle:
        images = Spool(handle)
        for beside in _image_files(file, context):
            for _, values in read_rows(beside, ("id", "image")):
                if isinstance(values, dict) and values["image"]:
                    with suppress(Unusable):  # a question about it is rejected
                        image = ImageFiles((beside.parent,)).get(values["image"])
                        images.put(str(values["id"]), image)
        wanted = [name for name in ("imageId", "question", "answer", "types") if name in names]
        for number, values in read_rows(file, wanted):
            try:
                assert isinstance(values, dict)  # Parquet's rows are whole
                row = Row(file, number, values, ImageFiles())
                yield _question_draft(row, DraftImage(images.get(row.text("imageId"), "imageId")))
            except Unusable as problem:
                yield Reject.of(problem, file.name, number)


def _image_files(file: Path, context: ReadContext) -> list[Path]:
    folders = [context.image_root] if context.image_root else []
    folders.append(file.parent.with_name(file.parent.name.replace("instructions", "images")))
    for folder in folders:
        found = sorted(folder.glob("*.parquet")) if folder != file.parent else []
        if found:
            return found
    raise ImportProblem(
        f"{file} holds no images, and {folders[-1]} has no Parquet with them: "
        "say with --image-root where they are"
    )


_FORMATS = published(
    "GQA", _draft, ("question", "answer", "imageId|image"), folders=("images",), keyed=True
)
TASKS = (
    Task(
        "gqa",
        "GQA: questions about scenes (Parquet with its images beside it, JSON, or a TSV)",
        {**_FORMATS, ".parquet": _read_parquet},
        split="test",
    ),
)
