"""Replay: trees rebuilt from recorded responses, with no server, to be compared or stored.

    replayed = await replay(BuildSettings(task="sat2", replay=True, teacher=url, space="qwen3-vl"))
    print(replayed.sentence())       # 6 trees rebuilt …: 6 are those of the warehouse, 0 are new …

A search is a function of its responses, so the same responses make the same tree, to the byte,
however many trees are rebuilt at once. Responses come from the journal or, where that is gone,
from the warehouse; so does the name of the model that answered.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from curation.grading.grade import grade
from flows.progress import Progress
from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages.build import find_questions
from flows.stages.curate import curate_trees, read_filters
from flows.stages.node_values import valuer_of
from flows.stages.search import Search, name_searches, search_config
from flows.teachers.resolve import resolve
from mcts.concurrency import gather
from mcts.config import SearchConfig
from mcts.coordinates import CoordinateSpace
from mcts.journal.journal import Journal, JournaledTeacher, JournalMismatch, ReplayMiss
from mcts.journal.records import Failure, Key, Record
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Completion
from mcts.teachers.identities import TOGETHER, members
from warehouse.query.read_back import rows_about
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees, record_run, rows_to_arrow
from warehouse.tables.schema import Row
from warehouse.tables.tree_rows import SearchRows, search_rows

# Who wrote a row, when and how: not what the search found.
_WRITING = frozenset({"run_id", "revision", "created_at", "commit_id"})
_TABLES = ("trees", "nodes", "rollouts", "responses")


@dataclass(slots=True)
class Replayed:
    """Outcome of a replay."""

    questions: int = 0
    same: int = 0
    """Trees rebuilt that equal the warehouse's, byte for byte."""
    new: list[str] = field(default_factory=list)
    """Trees that were not in the warehouse; they are now."""
    differing: list[str] = field(default_factory=list)
    """Trees that are in the warehouse otherwise; they stay as they are."""
    missing: dict[str, str] = field(default_factory=dict)
    """Trees that could not be rebuilt, and why."""

    @property
    def faithful(self) -> bool:
        """Whether every tree was rebuilt, and none differs."""
        return not (self.differing or self.missing)

    def sentence(self) -> str:
        """Sum up the outcome."""
        rebuilt = self.same + len(self.new) + len(self.differing)
        sentence = (
            f"{rebuilt} of {self.questions} trees rebuilt from recorded responses: {self.same} are "
            f"those of the warehouse, {len(self.new)} are new, {len(self.differing)} differ"
        )
        for tree_id in self.differing[:3]:
            sentence += f"\n{tree_id} differs from the warehouse's"
        for tree_id, reason in list(self.missing.items())[:3]:
            sentence += f"\n{tree_id} cannot be rebuilt: {reason}"
        return sentence


async def replay(settings: BuildSettings, *, progress: Progress | None = None) -> Replayed:
    """Rebuild every recorded tree of these settings; store what the warehouse lacks.

    Raises:
        Problem: nothing is recorded, or the searches of two teachers are.
    """
    progress = progress or Progress()
    warehouse = Warehouse.at(settings.home)
    config = search_config(settings, resolve(settings, recorded=True))
    questions = await find_questions(warehouse, settings, progress)
    replayed, run_id = Replayed(len(questions)), f"replay-{uuid.uuid4().hex[:12]}"
    with Journal(warehouse.journal_dir, store=warehouse.journal_store) as journal:
        identity, searches = recorded_searches(warehouse, journal, settings, config, questions)
        for start in range(0, len(searches), settings.shard):
            shard = searches[start : start + settings.shard]
            rebuilt = await _rebuild(warehouse, journal, shard, config, settings, identity)
            stored = await asyncio.to_thread(stored_rows, warehouse, [s.tree_id for s in shard])
            fresh: list[SearchRows] = []
            for named, rows in zip(shard, rebuilt, strict=True):
                name = named.tree_id
                if isinstance(rows, str):
                    replayed.missing[name] = rows
                elif name not in stored:
                    fresh.append(rows)
                elif canonical(rows) == stored[name]:
                    replayed.same += 1
                else:
                    replayed.differing.append(name)
                journal.forget(name)
            if fresh:
                await _store(warehouse, run_id, fresh, settings)
                replayed.new += [rows.tree["tree_id"] for rows in fresh]
    return replayed


def recorded_searches(
    warehouse: Warehouse,
    journal: Journal,
    settings: BuildSettings,
    config: SearchConfig,
    questions: Sequence[Any],
) -> tuple[str, list[Search]]:
    """Return the teacher that answered, and the searches as they are named for it."""
    from warehouse.query.run_query import query

    known = query(warehouse, "SELECT DISTINCT model FROM trees")["model"].to_pylist()
    found: dict[str, list[Search]] = {}
    for identity in sorted({*known, *journal.teachers}):
        if settings.model and settings.model not in (identity, _model_names(identity)):
            continue
        searches = name_searches(warehouse, settings, questions, config, identity)
        ids = [s.tree_id for s in searches]
        if rows_about(warehouse, ids, "SELECT tree_id FROM trees") or any(
            True for name in ids for _ in journal.records(name)
        ):
            found[identity] = searches
    if not found:
        raise Problem(
            f"nothing is recorded in {warehouse.root} for these questions with these settings; "
            "a replay wants the settings of the build it repeats"
        )
    alike = [name for name in found if len(members(name)) == len(members(settings.teacher))]
    if len(alike) == 1:
        return alike[0], found[alike[0]]
    if len(found) > 1:
        raise Problem(f"{' and '.join(found)} have answered these searches: give --model")
    return next(iter(found.items()))


def _model_names(identity: str) -> str:
    """Return the name of an identity's model, or those of several: `A + B`."""
    return TOGETHER.join(name.partition("@")[0] for name in members(identity))


async def _rebuild(
    warehouse: Warehouse,
    journal: Journal,
    shard: Sequence[Search],
    config: SearchConfig,
    settings: BuildSettings,
    identity: str,
) -> list[SearchRows | str]:
    """Rebuild each search's rows, or return why that fails; `settings.concurrency` at a time."""
    slots = asyncio.Semaphore(settings.concurrency)

    async def one(named: Search, source: Journal) -> SearchRows | str:
        teacher = JournaledTeacher(None, source, "replay", identity=identity)
        policy = TeacherPolicy(named.question, config, named.tree_id, teacher, {})
        async with slots:
            try:
                valuer = await valuer_of(warehouse, config, named.question)
                tree = await search(
                    named.question, config, policy, grade, named.tree_id, valuer=valuer
                )
            except (ReplayMiss, JournalMismatch) as error:
                return str(error)
        records = source.records(named.tree_id)
        return search_rows(tree, config, records, model=identity, seed=settings.seed)

    rebuilt = await gather(one(named, journal) for named in shard)
    # When a request was sent is in the journal only, and a limit in seconds depends on it.
    left = [s for s, rows in zip(shard, rebuilt, strict=True) if isinstance(rows, str)]
    if not left or settings.tree_seconds is not None:
        return rebuilt
    with tempfile.TemporaryDirectory() as folder, Journal(folder) as copy:
        records = await asyncio.to_thread(stored_records, warehouse, [s.tree_id for s in left])
        await gather(copy.append(record) for record in records)
        again = await gather(one(named, copy) for named in left)
    second = dict(zip([s.tree_id for s in left], again, strict=True))
    return [
        second[s.tree_id] if not isinstance(second.get(s.tree_id, ""), str) else rows
        for s, rows in zip(shard, rebuilt, strict=True)
    ]


def stored_records(warehouse: Warehouse, tree_ids: Sequence[str]) -> list[Record]:
    """Read the journal's records back from the warehouse's `responses`, all but their times.

    A response that is not whole in its table (half a surrogate pair was replaced) is left out.
    """
    requests: dict[tuple[str, str], list[Row]] = {}
    for row in rows_about(warehouse, tree_ids, "SELECT * FROM responses"):
        requests.setdefault((row["tree_id"], row["request_id"]), []).append(row)
    found = []
    for (tree_id, request_id), rows in requests.items():
        rows.sort(key=lambda row: row["sample"])
        first = rows[0]
        failure = Failure(first["error"], first["message"]) if first["error"] else None
        completions = () if failure else tuple(
            Completion(
                row["text"], row["finish_reason"], row["tokens"], mean_logprob=row["mean_logprob"]
            )
            for row in rows
        )  # fmt: skip
        record = Record(
            key=Key(tree_id, first["path"], first["purpose"], first["sample"]),
            fingerprint=first["fingerprint"],
            completions=completions,
            failure=failure,
            prompt_tokens=first["prompt_tokens"] or 0,
            cached_tokens=first["cached_tokens"],
            completion_tokens=sum(completion.tokens for completion in completions),
            seconds=first["seconds"] or 0.0,
            image_tokens=first["image_tokens"] or 0,
            started_at=0.0,
        )
        if record.response_id == request_id:
            found.append(record)
    return found


def canonical(rows: SearchRows) -> bytes:
    """Write a tree's rows as bytes, equal exactly when the tables would hold equal rows."""
    tables = {
        "trees": [rows.tree],
        "nodes": rows.nodes,
        "rollouts": rows.rollouts,
        "responses": rows.responses,
    }
    return _canonical({name: rows_to_arrow(name, tables[name]).to_pylist() for name in _TABLES})


def stored_rows(warehouse: Warehouse, tree_ids: Sequence[str]) -> dict[str, bytes]:
    """Read the `canonical` rows of the trees that are in the warehouse, by tree."""
    grouped: dict[str, dict[str, list[Row]]] = {}
    for name in _TABLES:
        for row in rows_about(warehouse, tree_ids, f"SELECT * FROM {name}"):
            grouped.setdefault(row["tree_id"], {n: [] for n in _TABLES})[name].append(row)
    return {tree_id: _canonical(tables) for tree_id, tables in grouped.items()}


def _canonical(tables: dict[str, list[Row]]) -> bytes:
    texts = {
        name: sorted(
            json.dumps(
                {
                    k: _with_defaults(v) if k == "config" else v
                    for k, v in row.items()
                    if k not in _WRITING
                },
                sort_keys=True,
            )
            for row in rows
        )
        for name, rows in tables.items()
    }
    return json.dumps(texts, sort_keys=True).encode()


def _with_defaults(config: str) -> dict[str, Any]:
    """Read a tree's configuration; older code did not write the fields that came later."""
    return {**asdict(SearchConfig(CoordinateSpace.qwen3_vl())), **json.loads(config)}


async def _store(
    warehouse: Warehouse, run_id: str, fresh: Sequence[SearchRows], settings: BuildSettings
) -> None:
    filters = read_filters(settings.filters)
    params = settings.params()
    await asyncio.to_thread(
        record_run, warehouse, run_id, "replay", task=settings.task, params=params
    )
    await asyncio.to_thread(commit_trees, warehouse, SearchRows.joined(fresh), run_id=run_id)
    await curate_trees(warehouse, run_id, [r.tree["tree_id"] for r in fresh], filters)
