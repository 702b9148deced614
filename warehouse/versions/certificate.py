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

from curation.filters.decontaminate import METHODS, WORDS_ALONE, Asked, compare
from warehouse.query.dedup_inputs import perceptual_hashes, read_asked
from warehouse.storage.home import Warehouse

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
    compared = compare(training, evaluation, hashes)
    found = compared.contaminated
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
        "methods": dict(METHODS),
        "matches": {way: ways[way] for way in METHODS},
        "questions_matched": len(found),
        "traces_matched": sum(traces[question_id] for question_id in found),
        "words_alone": {"method": WORDS_ALONE, "questions": len(compared.words_alone)},
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
    ways = sorted(made["matches"], key=lambda way: [*METHODS, way].index(way))
    for way in ways:
        told = f"{way.replace('_', ' ')} ({made['methods'][way]})"
        lines.append(f"| {told} | {made['matches'][way]} |")
    lines.append("")
    if made["questions_matched"]:
        lines.append(
            f"**{_so_many(made['questions_matched'], 'question')} "
            f"({_so_many(made['traces_matched'], 'trace')}) "
            f"match{'es' if made['questions_matched'] == 1 else ''} an evaluation question**, "
            "such as:"
        )
        lines += ["", *(f"- question {e['question_id']}: {e['why']}" for e in made["examples"])]
    else:
        lines.append("No question matches one of an evaluation set.")
    alone = made.get("words_alone", {"questions": 0})  # older certificates do not say
    if alone["questions"]:
        lines += [
            "",
            f"{_so_many(alone['questions'], 'question')} "
            f"use{'s' if alone['questions'] == 1 else ''} the words of an evaluation question "
            f"about another picture ({alone['method']}): a template, which counts for nothing.",
        ]
    if made["evaluation_questions"]:
        lines += [
            "",
            f"**{_so_many(made['evaluation_questions'], 'question')} "
            f"({_so_many(made['traces_of_evaluation_questions'], 'trace')}) in it belong to an "
            "evaluation set.**",
        ]
    if made["images_not_compared"]:
        lines += ["", f"{made['images_not_compared']} images could not be read and compared."]
    versions = ", ".join(f"{name} {v}" for name, v in sorted(made["tables"].items()))
    return [*lines, "", f"Compared on table versions: {versions}.", ""]


def _so_many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _images(asked: list[Asked]) -> set[str]:
    return {image_id for one in asked for image_id in one.image_ids}
