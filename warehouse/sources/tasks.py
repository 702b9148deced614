"""A task is data: what reads its questions, how they are asked, what an answer is, how far to zoom.

    TASKS = (
        Task(
            "screenspot",
            "ScreenSpot: gold boxes on screens (JSON)",
            {".json": read},                    # a function by file suffix, as in `drafts`
            kind=AnswerKind.BOX,
            prompt="web-grounding",
            lens=WEB,
        ),
    )

That, in one file beside this one, named in `warehouse.sources.MODULES`, and a test: nothing else
knows a task by its name. A package outside this repository has the same object and names it under
the entry-point group `vigorl.tasks`, the entry point bearing the task's name:

    [project.entry-points."vigorl.tasks"]
    my-task = "my_package.tasks:MY_TASK"

Its prompt may lie in that package too: `prompt="my_package:prompts/mine.txt"` (`mcts.prompts`).
Where a task says nothing of a field, the default does for pictures with questions and texts as
answers. A name that nobody registered is a task all the same, with every default, so questions
read by column (`vigorl import my-task table.csv --columns …`) can be searched at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from curation.traces.zoom_dialogues import Lens
from mcts.data import AnswerKind
from warehouse.sources.reading.drafts import ReadFile

SAMPLE = Path(__file__).resolve().parent / "sample"
"""The folder of the samples that come with vigorl."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Questions that come with a task, so that it can be tried without a download."""

    files: Mapping[str, Path]
    """A file by split; the task's own reader reads it."""
    source: str
    """The data set's name, as `questions.source` says it."""
    licence: str
    """The licence of questions and pictures, as an SPDX id where there is one."""


@dataclass(frozen=True, slots=True)
class Task:
    """Everything that is particular to one task or benchmark."""

    name: str
    """What users type, and what `questions.task` says."""
    title: str = ""
    """What is read, for a person choosing: the data set and its file format."""
    formats: Mapping[str, ReadFile] = field(default_factory=dict)
    """A reader by file suffix, such as `.parquet`. It raises ImportProblem if the whole file can't
    be read, and yields a Reject for a row that can't."""
    kind: AnswerKind = AnswerKind.TEXT
    """What an answer is, where the file itself doesn't say."""
    prompt: str = "points"
    """The prompt that asks a large model, as `mcts.prompts.load_prompt` names it."""
    split: str = ""
    """The split of files whose name says none; an evaluation set is never `train`."""
    metrics: tuple[str, ...] = ()
    """Its published figures (`curation.scores.benchmark_metrics`), beside accuracy."""
    lens: Lens | None = None
    """What one zoom call shows, in original pixels; None where a task doesn't zoom."""
    sample: Sample | None = None
    """Questions that come with it; a build without questions imports them."""
    plumbing: str = ""
    """Why traces of the embedded models prove here that everything runs, and no more: a clause that
    every such run ends with; empty where they are worth something (`vigorl_nano.task_control`
    measures)."""
