"""The certificate of a dataset version: what it was compared with, how, and what matched.

card["decontamination"] = certificate(warehouse, con, versions)   # `chosen` names the traces

It is made when the version is published, against every evaluation question the warehouse has then.
Matches do not stop a version: `kept_traces` has none of a curated task, and another statement may
want them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import duckdb

from curation.filters.decontaminate import METHODS, WORDS_ALONE, ComparedQuestion, compare
from warehouse.query.dedup_inputs import compared_questions, perceptual_hashes
from warehouse.storage.home import Warehouse

_EXAMPLES = 20
_COMPARED = ("questions", "images", "traces")


def certificate(
    warehouse: Warehouse, con: duckdb.DuckDBPyConnection, versions: Mapping[str, int | None]
) -> dict[str, Any]:
    """Make the certificate, as plain values, of the traces in the temp table `chosen`."""
    traces = dict(
        con.sql(
            "SELECT question_id, count(*) FROM traces SEMI JOIN chosen USING (trace_id) "
            "GROUP BY question_id"
        ).fetchall()
    )
    questions = [one for some in compared_questions(con) for one in some]
    evaluation = [question for question in questions if question.evaluates]
    chosen = [question for question in questions if question.question_id in traces]
    training = [question for question in chosen if not question.evaluates]
    images, known = _images(chosen), _images(evaluation)
    hashes = perceptual_hashes(warehouse, images | known) if evaluation else {}
    compared = compare(training, evaluation, hashes)
    contaminated = compared.contaminated
    themselves = [question.question_id for question in chosen if question.evaluates]
    ways = Counter(match.way for matches in contaminated.values() for match in matches)
    sets: dict[str, list[ComparedQuestion]] = {}
    for question in evaluation:
        sets.setdefault(question.set_name, []).append(question)
    return {
        "questions": len(chosen),
        "images": len(images),
        "traces": sum(traces.values()),
        "against": [
            {"set": name, "questions": len(some), "images": len(_images(some))}
            for name, some in sorted(sets.items())
        ],
        "tables": {name: versions[name] for name in _COMPARED if versions.get(name) is not None},
        "methods": dict(METHODS),
        "matches": {way: ways[way] for way in METHODS},
        "questions_matched": len(contaminated),
        "traces_matched": sum(traces[question_id] for question_id in contaminated),
        "words_alone": {"method": WORDS_ALONE, "questions": len(compared.words_alone)},
        "evaluation_questions": len(themselves),
        "traces_of_evaluation_questions": sum(traces[i] for i in themselves),
        "images_not_compared": len((images | known) - set(hashes)) if evaluation else 0,
        "examples": [
            {"question_id": question_id, "way": match.way, "why": match.reason}
            for question_id, matches in sorted(contaminated.items())[:_EXAMPLES]
            for match in matches[:1]
        ],
    }


def _images(questions: list[ComparedQuestion]) -> set[str]:
    return {image_id for question in questions for image_id in question.image_ids}
