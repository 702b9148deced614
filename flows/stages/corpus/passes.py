"""The second pass of curation: filters that must see a trace beside others of its task.

    changed = await filter_corpus(warehouse, run_id, "sat2")     # traces with a new verdict

Copies are found among the traces of a task about images that look alike, contamination between its
training questions and every evaluation question, and the images of training questions get their
places in the split. Filters of content run here as well, since they may be slow: a verdict by the
same method stands.

What a trace's neighbours are changes as the warehouse grows, so these verdicts are a stage of their
own (`verdicts.stage = 'corpus'`). A pass notes what it has seen; the next one filters questions
that have something new, with those that they are compared with, and no others. Either reads its
traces part by part, groups of questions that are compared with each other together.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.filters import dedup, image_hash
from curation.filters.base import CORPUS, Filter, TraceFilter
from curation.filters.config import DEFAULT_FILTERS, trace_filters
from curation.filters.decontaminate import (
    ComparedQuestion,
    Comparison,
    Match,
    NotInEvaluation,
)
from flows.stages.corpus.filter_part import Beside, CorpusPart, contamination, filter_part
from flows.stages.corpus.workers import filtered
from warehouse.query.additions import Seen, mark, show_added
from warehouse.query.corpus_parts import read_parts
from warehouse.query.dedup_inputs import (
    TRAINS,
    compared_questions,
    perceptual_hashes,
    place_images,
    read_hashes,
    unhashed_images,
)
from warehouse.query.run_query import connect, table_versions
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.storage.notes import read_note, write_note
from warehouse.tables.delta import count_inserts, insert_unless_overtaken
from warehouse.tables.schema import Row

_TABLES = ("traces", "verdicts", "questions", "image_hashes")
"""What the verdicts follow from; images and steps belong to the rows of these."""
_COMMIT_ROWS = 1_000_000  # verdicts committed at once


async def filter_corpus(
    warehouse: Warehouse, run_id: str, task: str, filters: Sequence[Filter] = DEFAULT_FILTERS
) -> int:
    """Apply the filters of this stage to a task's traces; return how many have a new verdict."""
    return await asyncio.to_thread(_filter_corpus, warehouse, run_id, task, filters)


def _filter_corpus(warehouse: Warehouse, run_id: str, task: str, filters: Sequence[Filter]) -> int:
    perceptual_hashes(warehouse, unhashed_images(warehouse), run_id)
    changed, done = 0, False
    while not done:  # another process was faster: its verdicts are read and compared
        versions = table_versions(warehouse)
        names = [*_TABLES, "images", "steps"]
        with connect(warehouse, versions, names) as con:
            this = _Pass(warehouse, con, run_id, task, filters, versions)
            done = this.run()
            changed += this.changed
    return changed


@dataclass
class _Pass:
    """One attempt at a task, over the tables at fixed versions."""

    warehouse: Warehouse
    con: Any
    """As `connect` opens it, at `versions`."""
    run_id: str
    task: str
    filters: Sequence[Filter]
    versions: dict[str, int | None]
    changed: int = 0
    """Traces with a new verdict."""
    alike: dict[int, dict[str, str]] = field(default_factory=dict)
    """As `Beside.alike`, of the images of the questions that are filtered."""

    def run(self) -> bool:
        """Judge what may have changed; return False if another process has inserted verdicts."""
        self.hashes = read_hashes(self.con)
        self.comparison, evaluation = self._evaluation()
        settings = {
            "filters": {one.name: one.method for one in self.filters if one.stage == CORPUS},
            "hash": image_hash.METHOD,
        }
        note = read_note(self.warehouse, _note_key(self.task))
        known = bool(note) and note["settings"] == settings and self._show_added(note["seen"])
        new_images = self._new_images() if known else None
        place_images(self.warehouse, self.con, self.hashes, self.run_id, new_images=new_images)
        if note and new_images is not None:
            groups = self._stale_groups(new_images, note["evaluation"] == evaluation)
        else:
            groups = self._all_groups()
        if not self._filter(groups):
            return False
        seen = mark(self.warehouse, {name: self.versions[name] for name in _TABLES})
        made = {"settings": settings, "evaluation": evaluation, "seen": seen}
        if made != note:
            write_note(self.warehouse, _note_key(self.task), made)
        return True

    # ---- what may have changed -------------------------------------------------------------------

    def _show_added(self, seen: Seen) -> bool:
        return all(
            show_added(self.con, self.warehouse, name, seen, self.versions[name])
            for name in _TABLES
        )

    def _evaluation(self) -> tuple[Comparison | None, str]:
        """Return what questions are compared with, and a fingerprint of it."""
        rule = next((one for one in self.filters if isinstance(one, NotInEvaluation)), None)
        if rule is None:
            return None, ""
        every = [q for some in compared_questions(self.con, f"NOT {TRAINS}") for q in some]
        hashes = self.hashes.of(image_id for one in every for image_id in one.image_ids)
        described = sorted(
            (q.question_id, q.set_name, [[i, hashes.get(i)] for i in q.image_ids]) for q in every
        )
        fingerprint = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]
        return Comparison(every, hashes, self._training, rule), fingerprint

    def _training(self) -> Iterator[ComparedQuestion]:
        for some in compared_questions(self.con, self._of_task):
            yield from some

    @property
    def _of_task(self) -> str:
        """The condition for the task's training questions."""
        return f"task = {quoted(self.task)} AND {TRAINS}"

    def _new_images(self) -> list[str]:
        """List the images whose hash is new, and those of new questions."""
        return self._column(
            f"SELECT image_id FROM added_image_hashes WHERE method = {quoted(image_hash.METHOD)} "
            "UNION SELECT unnest(image_ids) FROM added_questions"
        )

    def _stale_groups(self, new_images: Sequence[str], same_evaluation: bool) -> list[list[str]]:
        """Find the questions with something new, and those that they are compared with."""
        stale = set(
            self._column(
                "SELECT question_id FROM added_traces WHERE task = $1 UNION "
                f"SELECT question_id FROM added_questions WHERE {self._of_task} UNION "
                "SELECT question_id FROM traces SEMI JOIN "
                "(SELECT trace_id FROM added_verdicts WHERE commit_id IS NULL) USING (trace_id) "
                "WHERE task = $1",
                [self.task],
            )
        )
        bits = self._bits
        joined = self.hashes.alike(new_images, max(bits)) if bits else {}
        stale |= {one.question_id for one in self._showing(joined)}
        stale |= self._differently_known(stale, same_evaluation)
        ours = {one.question_id: one for one in self._named(stale)}
        images = {image_id for one in ours.values() for image_id in one.image_ids}
        hashes = self.hashes.alike(images, max(bits)) if bits else {}
        self.alike = {n: image_hash.group_similar(hashes, n) for n in bits}
        every = {one.question_id: one for one in self._showing(images | set(hashes))}
        return [group for group in self._groups(every.values()) if not stale.isdisjoint(group)]

    def _all_groups(self) -> list[list[str]]:
        self.alike = {n: image_hash.group_similar(self.hashes.all(), n) for n in self._bits}
        searched = f"{self._of_task} AND question_id IN (SELECT question_id FROM traces)"
        return self._groups(q for some in compared_questions(self.con, searched) for q in some)

    @property
    def _bits(self) -> set[int]:
        return {one.max_hash_bits for one in self.filters if isinstance(one, dedup.CopyFilter)}

    def _groups(self, questions: Iterable[ComparedQuestion]) -> list[list[str]]:
        """Group questions about images that look alike: what is compared with each other."""
        if not self._bits:
            return [[one.question_id] for one in questions]
        alike = self.alike[max(self._bits)]  # the groups by fewer bits are parts of these
        found: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for one in questions:
            found[tuple(alike.get(i, i) for i in one.image_ids)].append(one.question_id)
        return list(found.values())

    def _differently_known(self, new: set[str], same_evaluation: bool) -> set[str]:
        """Find the questions on which the comparison with evaluation questions gives another
        verdict than the one stored.

        While those are the same, that can happen to a question that was contaminated: by words that
        new training questions have made common. None becomes contaminated.
        """
        if self.comparison is None:
            return set()
        rule = next(one for one in self.filters if isinstance(one, NotInEvaluation))
        stored: dict[str, list[Row]] = defaultdict(list)
        for row in self._contaminated(rule.name):
            stored[row.pop("question_id")].append(row)
        asked: Iterable[list[ComparedQuestion]]
        if same_evaluation:
            asked = [self._named(set(stored) - new)] if self._added_training() else []
        else:
            asked = compared_questions(self.con, self._of_task)
        differing: set[str] = set()
        for some in asked:
            found = self._compare(some)
            for one in some:
                given = found.get(one.question_id)
                verdict = [contamination(rule, given)] if given else []
                if stored[one.question_id] != verdict:
                    differing.add(one.question_id)
        return differing

    def _added_training(self) -> bool:
        return bool(self._column(f"SELECT 1 FROM added_questions WHERE {self._of_task} LIMIT 1"))

    def _contaminated(self, name: str) -> list[Row]:
        """Read what is stored of contaminated questions: each verdict once a question."""
        return list(
            self.con.sql(
                "SELECT DISTINCT question_id, keep, reason, score, method, other FROM (SELECT * "
                "FROM (SELECT trace_id, version, keep, reason, score, method, other FROM verdicts "
                f"WHERE stage = '{CORPUS}' AND filter = {quoted(name)}) SEMI JOIN (SELECT trace_id "
                f"FROM verdicts WHERE NOT keep AND filter = {quoted(name)}) USING (trace_id) "
                "QUALIFY version = max(version) OVER (PARTITION BY trace_id)) "
                "JOIN (SELECT trace_id, question_id FROM traces "
                f"WHERE task = {quoted(self.task)}) USING (trace_id) WHERE NOT keep"
            )
            .to_arrow_table()
            .to_pylist()
        )

    def _named(self, question_ids: Iterable[str]) -> list[ComparedQuestion]:
        """Read training questions of the task by their ids."""
        ids = pa.array(sorted(question_ids), pa.string())
        self.con.register("_named", pa.table({"question_id": ids}))
        named = f"{self._of_task} AND question_id IN (SELECT question_id FROM _named)"
        return [one for some in compared_questions(self.con, named) for one in some]

    def _showing(self, image_ids: Iterable[str]) -> list[ComparedQuestion]:
        """Read the training questions of the task that show one of the images."""
        ids = pa.array(sorted(image_ids), pa.string())
        if not len(ids):
            return []
        self.con.register("_shown", pa.table({"image_id": ids}))
        return self._named(
            self._column(
                "SELECT DISTINCT question_id FROM (SELECT question_id, unnest(image_ids) AS "
                f"image_id FROM questions WHERE {self._of_task}) SEMI JOIN _shown USING (image_id)"
            )
        )

    def _column(self, sql: str, values: Sequence[str] = ()) -> list[Any]:
        return [value for (value,) in self.con.execute(sql, list(values)).fetchall()]

    # ---- the verdicts ----------------------------------------------------------------------------

    def _filter(self, groups: Iterable[Sequence[str]]) -> bool:
        """Filter groups of questions and store what has changed; False if overtaken."""
        inserts = count_inserts(self.warehouse, "verdicts", self.versions["verdicts"])
        content = trace_filters(self.filters, CORPUS)
        waiting: list[pa.Table] = []
        work = partial(filter_part, self.warehouse, self.filters, self.run_id)
        for table in filtered(self._parts(groups, content), work):
            if table.num_rows:
                self.changed += pc.count_distinct(table["trace_id"]).as_py()
                waiting.append(table)
            if sum(table.num_rows for table in waiting) >= _COMMIT_ROWS:
                if not self._insert(waiting, inserts):
                    return False
                inserts, waiting = inserts + 1, []
        return not waiting or self._insert(waiting, inserts)

    def _parts(
        self, groups: Iterable[Sequence[str]], content: Sequence[TraceFilter]
    ) -> Iterator[CorpusPart]:
        for part in read_parts(self.con, self.task, groups, content):
            alike = {
                bits: {image_id: group[image_id] for image_id in part.sizes if image_id in group}
                for bits, group in self.alike.items()
            }
            contaminated = self._compare(part.questions.values())
            beside = Beside(part.questions, part.sizes, alike, contaminated)
            yield CorpusPart(part.rows, part.stored, part.unfiltered, beside)

    def _insert(self, tables: Sequence[pa.Table], inserts: int) -> bool:
        rows = pa.concat_tables(tables)
        version = insert_unless_overtaken(self.warehouse, "verdicts", rows, inserts)
        if version is None:
            self.changed -= len(set(rows["trace_id"].to_pylist()))
            return False
        self.versions["verdicts"] = version
        return True

    def _compare(self, questions: Iterable[ComparedQuestion]) -> dict[str, list[Match]]:
        if self.comparison is None:
            return {}
        ours = list(questions)
        hashes = self.hashes.of(image_id for one in ours for image_id in one.image_ids)
        return self.comparison.compare(ours, hashes).contaminated


def _note_key(task: str) -> str:
    """The key of the note of what the last pass over a task has seen."""
    return f"tables/verdicts/_passes/{hashlib.sha256(task.encode()).hexdigest()[:16]}.json"
