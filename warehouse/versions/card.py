"""A data set version's card: card.json for programs, README.md for people and for the hub.

card = make_card(con, rows, {"name": "sat2-sft", "sql": …})    # `chosen` names the traces
card["samples"] = write_samples(folder)       # sample-1.png, … beside rows.parquet
write_card(card, folder)
print(readme(card))

Which traces are drawn follows from their ids alone, one of each kind and family before a second of
any. The sample images are beside the content, not part of it: no hash covers them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from curation.render.trace_card import draw_trace
from mcts.data import ResponseStyle
from warehouse.versions.bundle import FORMAT, Rows, question_of, trace_of
from warehouse.versions.certificate import certificate_lines
from warehouse.versions.response_styles import response_style_of

_STYLES = {
    ResponseStyle.GROUNDED: "the chains as searched, those that can be written without points too",
    ResponseStyle.UNGROUNDED: "the same chains without their points",
    ResponseStyle.ANSWER_ONLY: "answers without reasoning, each once",
    ResponseStyle.ZOOM: "direct chains as dialogues that call for crops and are shown them",
}

MOST = 3
"""Pictures a version is given."""


def make_card(con: duckdb.DuckDBPyConnection, rows: Rows, about: dict[str, Any]) -> dict[str, Any]:
    """What a reader must know of a version: counts, funnel, teachers, spaces, licences."""
    con.execute(
        "CREATE OR REPLACE TEMP VIEW chosen_rows AS SELECT t.*, q.split, q.family, q.source, "
        "q.licence, r.space, r.min_pixels, r.max_pixels, r.factor, r.prompt_hash FROM traces t "
        "SEMI JOIN chosen USING (trace_id) JOIN questions q USING (question_id) "
        "LEFT JOIN trees r USING (tree_id)"
    )

    def listed(sql: str) -> list[dict[str, Any]]:
        return list(con.sql(sql).to_arrow_table().to_pylist())

    def counts(column: str) -> dict[str, int]:
        sql = f"SELECT {column} AS k, count(*) AS n FROM chosen_rows GROUP BY 1 ORDER BY 2 DESC, 1"
        return {row["k"] or "unknown": row["n"] for row in listed(sql)}

    (totals,) = listed(
        "SELECT count(DISTINCT question_id) AS questions, avg(n_steps) AS mean_steps, "
        "avg(n_points) AS mean_points, avg(reward) AS mean_reward FROM chosen_rows"
    )
    return {
        **about,
        "format": FORMAT,
        "content_hash": rows.content_hash,
        "rows": rows.count,
        "images": len(rows.images),
        **totals,
        **{
            f"by_{column}": counts(column)
            for column in ("task", "kind", "family", "split", "origin", "source", "linearizer")
        },
        **_restyled_facts(rows, about),
        "licences": counts("licence"),
        "image_licences": _image_licences(rows),
        "teachers": listed(
            "SELECT model, space, min_pixels, max_pixels, factor, prompt_hash, "
            "count(*) AS traces FROM chosen_rows GROUP BY ALL "
            "ORDER BY traces DESC, model, prompt_hash"
        ),
        # Of everything the filters saw of these tasks, what is not in the version included.
        "funnel": listed(
            "SELECT filter, coalesce(method, 'version ' || version) AS how, "
            "count(*) FILTER (keep) AS kept, "
            "count(*) FILTER (NOT keep) AS dropped FROM latest_verdicts SEMI JOIN (SELECT trace_id "
            "FROM traces WHERE task IN (SELECT task FROM chosen_rows)) USING (trace_id) "
            "GROUP BY ALL ORDER BY dropped DESC, filter, how"
        ),
    }


def _restyled_facts(rows: Rows, about: dict[str, Any]) -> dict[str, Any]:
    """The facts that a response style changes: the tables hold the chains as they were searched."""
    if response_style_of(about) is None:
        return {}
    kinds = {k.removeprefix("kind "): n for k, n in rows.counts.items() if k.startswith("kind ")}
    return {
        "left_out": rows.left_out,
        "by_kind": dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0]))),
        "mean_steps": rows.counts["steps"] / rows.count,
        "mean_points": rows.counts["points"] / rows.count,
    }


def _image_licences(rows: Rows) -> dict[str, int]:
    found = [image["licence"] or "unknown" for image in rows.images.values()]
    return {licence: found.count(licence) for licence in sorted(set(found))}


def write_samples(folder: Path) -> list[dict[str, str]]:
    """Draw a few traces of a prepared version into its folder; their files and trace ids."""
    chosen = _chosen(folder / "rows.parquet")
    samples = []
    for number, row in enumerate(chosen, 1):
        question, trace = question_of(row), trace_of(row)
        pictures = tuple(_picture(folder / "images.parquet", i) for i in row["image_ids"])
        name = f"sample-{number}.png"
        (folder / name).write_bytes(draw_trace(trace, question, pictures))
        samples.append({"file": name, "trace_id": row["trace_id"]})
    return samples


def _chosen(path: Path) -> list[dict[str, Any]]:
    """The rows to draw. An id is a hash, so the first ids are a fair sample."""
    with duckdb.connect() as con:
        found = con.execute(
            "SELECT trace_id, row_number() OVER (PARTITION BY kind, family ORDER BY trace_id) "
            "AS nth FROM read_parquet(?) ORDER BY nth, trace_id LIMIT ?",
            [str(path), MOST],
        ).fetchall()
    ids = [trace_id for trace_id, _ in found]
    rows = pq.read_table(path, filters=[("trace_id", "in", ids)]).to_pylist()
    return sorted(rows, key=lambda row: ids.index(row["trace_id"]))


def _picture(path: Path, image_id: str) -> bytes:
    wanted = [("image_id", "=", image_id)]
    (row,) = pq.read_table(path, columns=["bytes"], filters=wanted).to_pylist()
    return bytes(row["bytes"])


def write_card(card: dict[str, Any], folder: Path) -> None:
    """Write card.json and README.md, in place of those that are there."""
    text = json.dumps(card, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    for name, content in (("card.json", text), ("README.md", readme(card))):
        (folder / name).unlink(missing_ok=True)  # a read-only one can be replaced, not rewritten
        (folder / name).write_text(content, encoding="utf-8")


def front_matter(licences: Mapping[str, int], configs: Iterable[str]) -> list[str]:
    """The lines at the head of a README by which `datasets` and the hub find what is in a folder.

    Args:
        licences: rows by licence.
        configs: lines of YAML, the list under `configs`.
    """
    licence = next(iter(licences)).lower() if len(licences) == 1 else "other"
    return [
        "---",
        f"license: {licence if licence != 'unknown' else 'other'}",
        "task_categories: [image-text-to-text]",
        "tags: [vigorl, grounded-reasoning]",
        "configs:",
        *configs,
        "---",
        "",
    ]


def readme(card: dict[str, Any]) -> str:
    """The card as Markdown, with the front matter that `datasets.load_dataset` reads."""
    ref = f"{card['name']}@v{card['version']}"
    licences = card["licences"]
    parts = [
        *front_matter(
            licences,
            [
                "- {config_name: rows, data_files: rows.parquet, default: true}",
                "- {config_name: images, data_files: images.parquet}",
            ],
        ),
        f"# {ref}",
        "",
        f"{card['rows']} traces of {card['questions']} questions about {card['images']} images: "
        f"{_mean(card['mean_steps'])} steps and {_mean(card['mean_points'])} points a trace, "
        f"mean reward {_mean(card['mean_reward'])}.",
        "",
        f"Content hash `{card['content_hash']}`, published {card['created_at']} "
        f"by code {card['revision']}.",
        "",
        *_response_style(card),
        "## What is in it",
        "",
    ]
    for column in ("task", "kind", "family", "split", "origin", "source"):
        listed = ", ".join(f"{name} {n}" for name, n in card[f"by_{column}"].items())
        parts.append(f"- {column}: {listed}")
    for title, key in (("licence", "licences"), ("licence of the images", "image_licences")):
        listed = ", ".join(f"{name} {n}" for name, n in card[key].items())
        parts.append(f"- {title}: {listed}")
    parts += [
        "",
        "Points and boxes are original pixels of the named image, x right and y down.",
        "",
        "## Who wrote it",
        "",
        "| teacher | coordinates it spoke | prompt (hash) | traces |",
        "|---|---|---|---|",
    ]
    for teacher in card["teachers"]:
        name, prompt = teacher["model"] or "unknown", teacher["prompt_hash"] or "unknown"
        parts.append(f"| {name} | {_space(teacher)} | {prompt} | {teacher['traces']} |")
    parts += ["", "## What the filters kept, of all traces of these tasks", ""]
    parts += ["| filter | kept | dropped | how it decides |", "|---|---|---|---|"]
    for row in card["funnel"]:
        how = row.get("how") or f"version {row['version']}"  # older cards have the version alone
        parts.append(f"| {row['filter']} | {row['kept']} | {row['dropped']} | {how} |")
    parts += [*_revoked(card), *_samples(card), ""]
    if "decontamination" in card:  # versions published by older code have none
        parts += certificate_lines(card["decontamination"])
    versions = ", ".join(f"{name} {v}" for name, v in sorted(card["table_versions"].items()))
    parts += [
        "## How it was chosen",
        "",
        "```sql",
        card["sql"],
        "```",
        "",
        f"on table versions: {versions}.",
        "",
    ]
    return "\n".join(parts)


def _response_style(card: dict[str, Any]) -> list[str]:
    """In which response style its traces are written, where it is not their own."""
    if (style := response_style_of(card)) is None:
        return []
    left_out = card.get("left_out")
    lost = f" {left_out} of the chosen can't be written so, or repeat another." if left_out else ""
    return [f"Response style `{style}`: {_STYLES[style]}.{lost}", ""]


def _revoked(card: dict[str, Any]) -> list[str]:
    """What the statement chose and a revocation took out again."""
    rows = card.get("revoked") or []
    lines = [f"| {r['subject']} {r['value']} | {r['reason']} | {r['rows']} |" for r in rows]
    head = ["", "## Left out, because revoked", "", "| what | why | rows |", "|---|---|---|"]
    return [*head, *lines] if rows else []


def _samples(card: dict[str, Any]) -> list[str]:
    """Pictures of a few of its traces, which lie beside the card."""
    samples = card.get("samples", ())
    shown = [f"![trace {sample['trace_id']}]({sample['file']})" for sample in samples]
    return ["", "## Some of it, drawn", "", *shown] if shown else []


def _mean(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _space(teacher: dict[str, Any]) -> str:
    if not teacher["space"]:
        return "unknown"
    if teacher["min_pixels"] is None:
        return str(teacher["space"])
    return (
        f"{teacher['space']}, {teacher['min_pixels']} to {teacher['max_pixels']} pixels, "
        f"sides in multiples of {teacher['factor']}"
    )
