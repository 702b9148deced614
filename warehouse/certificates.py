"""The certificate of a data set version: what it was compared with, how, and what was found.

card["decontamination"] = certificate(warehouse, con, versions)   # `chosen` names the traces
lines = told(card["decontamination"])                             # for the card's README

It is made when the version is, against every evaluation question the warehouse has then. Matches do
not stop a version: `kept_traces` has none of a curated task, and another statement may want them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import duckdb

from curation.decontaminate import METHODS, Asked, contaminated
from warehouse.home import Warehouse
from warehouse.hygiene import perceptual_hashes, read_asked

_EXAMPLES = 20
_COMPARED = ("questions", "images", "traces")


def certificate(
    warehouse: Warehouse, con: duckdb.DuckDBPyConnection, versions: Mapping[str, int | None]
) -> dict[str, Any]:
    """The certificate, as plain values, of the traces in the temp table `chosen`."""
    traces = dict(
        con.sql(
            "SELECT question_id, count(*) FROM traces SEMI JOIN chosen USING (trace_id) "
            "GROUP BY question_id"
        ).fetchall()
    )
    asked = read_asked(con)
    evaluation = [one for one in asked if one.evaluates]
    chosen = [one for one in asked if one.question_id in traces]
    training = [one for one in chosen if not one.evaluates]
    images, known = _images(chosen), _images(evaluation)
    hashes = perceptual_hashes(warehouse, images | known) if evaluation else {}
    found = contaminated(training, evaluation, hashes)
    themselves = [one.question_id for one in chosen if one.evaluates]
    ways = Counter(match.way for matches in found.values() for match in matches)
    sets: dict[str, list[Asked]] = {}
    for one in evaluation:
        sets.setdefault(one.set_name, []).append(one)
    return {
        "questions": len(chosen),
        "images": len(images),
        "traces": sum(traces.values()),
        "against": [
            {"set": name, "questions": len(some), "images": len(_images(some))}
            for name, some in sorted(sets.items())
        ],
        "tables": {name: versions[name] for name in _COMPARED if versions.get(name) is not None},
        "methods": METHODS,
        "matches": {way: ways[way] for way in METHODS},
        "questions_matched": len(found),
        "traces_matched": sum(traces[question_id] for question_id in found),
        "evaluation_questions": len(themselves),
        "traces_of_evaluation_questions": sum(traces[i] for i in themselves),
        "images_not_compared": len((images | known) - set(hashes)) if evaluation else 0,
        "examples": [
            {"question_id": question_id, "way": match.way, "why": match.reason}
            for question_id, matches in sorted(found.items())[:_EXAMPLES]
            for match in matches[:1]
        ],
    }


def told(made: Mapping[str, Any]) -> list[str]:
    """The certificate as lines of Markdown."""
    lines = ["## Checked against evaluation sets", ""]
    if not made["against"]:
        return [*lines, "The warehouse held no evaluation set to compare with.", ""]
    lines += [
        f"{made['questions']} questions about {made['images']} images were compared with:",
        "",
        "| evaluation set | questions | images |",
        "|---|---|---|",
        *(f"| {s['set']} | {s['questions']} | {s['images']} |" for s in made["against"]),
        "",
        "| how | matching questions |",
        "|---|---|",
    ]
    for way, count in made["matches"].items():
        lines.append(f"| {way.replace('_', ' ')} ({made['methods'][way]}) | {count} |")
    lines.append("")
    if made["questions_matched"]:
        lines.append(
            f"**{made['questions_matched']} questions ({made['traces_matched']} traces) match an "
            "evaluation question**, such as:"
        )
        lines += ["", *(f"- question {e['question_id']}: {e['why']}" for e in made["examples"])]
    else:
        lines.append("No question matches one of an evaluation set.")
    if made["evaluation_questions"]:
        lines += [
            "",
            f"**{made['evaluation_questions']} questions "
            f"({made['traces_of_evaluation_questions']} traces) are themselves in one.**",
        ]
    if made["images_not_compared"]:
        lines += ["", f"{made['images_not_compared']} images could not be read and compared."]
    versions = ", ".join(f"{name} {v}" for name, v in sorted(made["tables"].items()))
    return [*lines, "", f"Compared on table versions: {versions}.", ""]


def _images(asked: list[Asked]) -> set[str]:
    return {image_id for one in asked for image_id in one.image_ids}
