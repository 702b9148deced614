"""A journal that lost answers, or has others' for the same places: nothing ends, nothing is paid
for twice."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from curation.grading.grade import grade
from mcts.journal.journal import Journal, JournaledTeacher, JournalMismatch
from mcts.journal.records import decode
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Completion, Reply
from tests.support.scripted import CONFIG, QUESTION, seeded_teacher
from warehouse.tables.tree_rows import SearchRows, search_rows

STRATEGIES = [
    {"strategy": "mcts", "simulations": 4, "children": 2, "wave": 2},
    {"strategy": "linear", "samples": 3, "wave": 2},
    {"strategy": "best-of-n", "samples": 9},
]


class Sampler:
    """Answers a request another way each time, as a server does that ignores seeds."""

    identity = "sampler"

    def __init__(self, salt: str) -> None:
        self.salt, self.asked = salt, 0

    async def open(self) -> None: ...

    async def complete(self, request, images):
        self.asked += 1
        purpose = "finish" if len(request.stop) == 1 else "expand"
        if request.max_tokens > 512:
            purpose = "rollout"
        texts = [
            seeded_teacher(f"{self.salt}{request.seed}", purpose, (), i) for i in range(request.n)
        ]
        return Reply(tuple(Completion(t, "stop", 7) for t in texts), 50, None, 7, 0.01)


def searched(folder: Path, config, teacher: Sampler | None) -> SearchRows:
    """Search in a journal; without a teacher, replay."""
    with Journal(folder) as journal:
        mode = "resume" if teacher else "replay"
        asked = JournaledTeacher(teacher, journal, mode, identity="sampler")
        policy = TeacherPolicy(QUESTION, config, "t", asked, {})
        tree = asyncio.run(search(QUESTION, config, policy, grade, "t"))
        return search_rows(tree, config, journal.records("t"), model="m", seed=0)


@pytest.mark.parametrize("changes", STRATEGIES, ids=lambda changes: changes["strategy"])
def test_after_any_answer_is_lost_the_search_goes_on_and_is_then_complete(tmp_path, changes):
    config = replace(CONFIG, **changes)
    whole = tmp_path / "whole"
    searched(whole, config, Sampler("first"))
    (segment,) = whole.glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    assert len(lines) > 1
    for lost in range(len(lines)):
        folder = tmp_path / str(lost)
        shutil.copytree(whole, folder)
        left = [line for i, line in enumerate(lines) if i != lost]
        (folder / segment.name).write_bytes(b"".join(left))
        healing, idle = Sampler("second"), Sampler("third")
        rows = searched(folder, config, healing)
        assert healing.asked >= 1
        assert searched(folder, config, idle) == rows and idle.asked == 0
        assert searched(folder, config, None) == rows, "a replay finds the same answers"
        used = {row["response_id"] for row in rows.responses}
        stored = {decode(line).response_id for path in folder.glob("*.jsonl")
                  for line in path.read_bytes().splitlines(keepends=True)}  # fmt: skip
        assert {name.rpartition(".")[0] for name in used} <= stored


def test_two_journals_of_one_search_are_merged_into_one_that_goes_on(tmp_path):
    config = replace(CONFIG, **STRATEGIES[0])
    for name in ("one", "two"):
        searched(tmp_path / name, config, Sampler(name))
    for path in (tmp_path / "two").glob("*.jsonl"):
        shutil.copy(path, tmp_path / "one")
    idle = Sampler("third")
    rows = searched(tmp_path / "one", config, idle)
    assert idle.asked == 0, "each of the two trees is whole"
    assert searched(tmp_path / "one", config, None) == rows


def test_a_first_request_that_differs_is_another_experiment(tmp_path):
    config = replace(CONFIG, **STRATEGIES[0])
    searched(tmp_path, config, Sampler("first"))
    asked = Sampler("second")
    with pytest.raises(JournalMismatch, match="the prompts, settings or code have changed"):
        searched(tmp_path, replace(config, temperature=0.5), asked)
    assert asked.asked == 0


def test_a_replay_of_a_journal_with_a_gap_says_so(tmp_path):
    config = replace(CONFIG, **STRATEGIES[0])
    searched(tmp_path, config, Sampler("first"))
    (segment,) = tmp_path.glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[1:]))
    with pytest.raises(Exception, match="the journal has no answer for node ''"):
        searched(tmp_path, config, None)
