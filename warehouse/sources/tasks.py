"""A task is data: its readers, prompt, answer kind, metrics and zoom.

    TASKS = (
        Task(
            "screenspot",
            "ScreenSpot: gold boxes on screens (JSON)",
            {".json": read},                    # a function by file suffix, as in `drafts`
            kind=AnswerKind.BOX,
            prompt="web-grounding",
            lens=WEB_LENS,
        ),
    )

Nothing else knows a task by its name: a task of this package is one file in `benchmarks/`, named in
`warehouse.sources.MODULES`, and a test. A package outside this repository has the same object and
names it under the entry-point group `vigorl.tasks`, the entry point bearing the task's name:

    [project.entry-points."vigorl.tasks"]
    my-task = "my_package.tasks:MY_TASK"

Its prompt may lie in that package too: `prompt="my_package:prompts/mine.txt"` (`mcts.prompts`). The
defaults suit images with questions and texts as answers. An unregistered name is a task too, with
every default, so questions read by column (`vigorl import my-task table.csv --columns …`) can be
searched at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path

from mcts.data import AnswerKind
from mcts.zoom.lenses import Lens
from warehouse.sources.reading.drafts import ReadFile

SAMPLE = Path(__file__).resolve().parent / "sample"
"""The folder of the samples that come with vigorl."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Questions included with a task, so that it can be tried without a download."""

    files: Mapping[str, Path]
    """A file by split; the task's own reader reads it."""
    source: str
    """The dataset's name, stored as `questions.source`."""
    licence: str
    """The licence of questions and images, as an SPDX id where there is one."""


@dataclass(frozen=True, slots=True)
class Task:
    """Everything that is specific to one task or benchmark."""

    name: str
    """What users type, stored as `questions.task`."""
    title: str = ""
    """The dataset and its file formats, for a list of tasks."""
    formats: Mapping[str, ReadFile] = field(default_factory=dict)
    """A reader by file suffix, such as `.parquet`. It raises ImportProblem if the whole file can't
    be read, and yields a Reject for a row that can't."""
    kind: AnswerKind = AnswerKind.TEXT
    """How answers are graded, where the file itself doesn't say."""
    prompt: str = "points"
    """The prompt for large models, as `mcts.prompts.load_prompt` names it."""
    split: str = ""
    """The split of files whose name has none; an evaluation set is never `train`."""
    metrics: tuple[str, ...] = ()
    """Its published metrics (`curation.scores.benchmark_metrics`), besides accuracy."""
    counts_by: tuple[str, ...] = ()
    """Fields of a question (`family`, `part_of`) under each value of which its benchmark counts an
    equal question again; they are part of the question's id."""
    lens: Lens | None = None
    """The region one zoom call shows, in original pixels; None where a task doesn't zoom."""
    sample: Sample | None = None
    """Questions included with it; a build without questions imports them."""
    smoke_test_only: str = ""
    """Why results of embedded models that don't zoom only show that everything runs: a clause added
    to the report of such a run; empty where they mean more (`make task-control` measures)."""
    plumbing: InitVar[str] = ""
    """The former name of `smoke_test_only`; accepted until 0.2."""

    def __post_init__(self, plumbing: str) -> None:
        if plumbing:
            warnings.warn(
                f"task {self.name}: plumbing is called smoke_test_only now",
                DeprecationWarning,
                stacklevel=3,
            )
            object.__setattr__(self, "smoke_test_only", plumbing)
