"""A dataset version's card: card.json for programs, README.md for people and for the hub.

card = make_card(con, rows, {"name": "sat2-sft", "sql": …})    # `chosen` names the traces
card["samples"] = write_samples(folder)       # sample-1.png, … beside rows.parquet
write_card(card, folder)
print(readme(card))

Which traces are drawn follows from their ids alone, one of each kind and family before a second of
any. The sample images are beside the content, not part of it: no hash covers them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from curation.filters.decontaminate import METHODS
from curation.render.markdown import render_markdown
from curation.render.trace_card import draw_trace
from mcts.data import ResponseStyle
from warehouse.versions.bundle import FORMAT, Rows, question_of, trace_of
from warehouse.versions.response_styles import response_style_of

_STYLES = {
    ResponseStyle.GROUNDED: "the chains as searched, those that can be written without points too",
    ResponseStyle.UNGROUNDED: "the same chains without their points",
    ResponseStyle.ANSWER_ONLY: "answers without reasoning, each once",
    ResponseStyle.ZOOM: "dialogues that call for crops and are shown them; those whose linearizer "
    "is zoom_dialogues were direct chains, whose words were written without the crops",
}

_ZOOMS = ("dialogues", "crops")
"""What a card says of a version in which traces zoom."""

SAMPLES = 3
"""Traces drawn for a version."""


def make_card(con: duckdb.DuckDBPyConnection, rows: Rows, about: dict[str, Any]) -> dict[str, Any]:
    """Collect what a reader must know of a version: counts, funnel, teachers, spaces, licences."""
    con.execute(
        "CREATE OR REPLACE TEMP VIEW chosen_rows AS SELECT t.*, q.split, q.family, q.source, "
        "q.licence, r.space, r.min_pixels, r.max_pixels, r.factor, r.prompt_hash FROM traces t "
        "SEMI JOIN chosen USING (trace_id) JOIN questions q USING (question_id) "
        "LEFT JOIN trees r USING (tree_id)"
    )

    def listed(sql: str) -> list[dict[str, Any]]:
        return list(con.sql(sql).to_arrow_table().to_pylist())

    def counts(column: str) -> dict[str, int]:
        name = f"coalesce(nullif({column}, ''), 'unknown')"
        sql = f"SELECT {name} AS k, count(*) AS n FROM chosen_rows GROUP BY 1 ORDER BY 2 DESC, 1"
        return {row["k"]: row["n"] for row in listed(sql)}

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
        **({name: rows.counts[name] for name in _ZOOMS} if rows.counts["dialogues"] else {}),
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
            "count(*) FILTER (NOT keep) AS dropped FROM latest_verdicts SEMI JOIN latest_traces "
            "USING (trace_id) SEMI JOIN (SELECT trace_id "
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
    """Draw a few traces of a prepared version into its folder; return their files and trace ids."""
    chosen = _chosen(folder / "rows.parquet")
    samples = []
    for number, row in enumerate(chosen, 1):
        question, trace = question_of(row), trace_of(row)
        images = tuple(_read_image(folder / "images.parquet", i) for i in row["image_ids"])
        name = f"sample-{number}.png"
        (folder / name).write_bytes(draw_trace(trace, question, images))
        samples.append({"file": name, "trace_id": row["trace_id"]})
    return samples


def _chosen(path: Path) -> list[dict[str, Any]]:
    """The rows to draw. An id is a hash, so the first ids are a fair sample."""
    with duckdb.connect() as con:
        found = con.execute(
            "SELECT trace_id, row_number() OVER (PARTITION BY kind, family ORDER BY trace_id) "
            "AS nth FROM read_parquet(?) ORDER BY nth, trace_id LIMIT ?",
            [str(path), SAMPLES],
        ).fetchall()
    ids = [trace_id for trace_id, _ in found]
    rows = pq.read_table(path, filters=[("trace_id", "in", ids)]).to_pylist()
    return sorted(rows, key=lambda row: ids.index(row["trace_id"]))


def _read_image(path: Path, image_id: str) -> bytes:
    this = [("image_id", "=", image_id)]
    (row,) = pq.read_table(path, columns=["bytes"], filters=this).to_pylist()
    return bytes(row["bytes"])


def write_card(card: dict[str, Any], folder: Path) -> None:
    """Write card.json and README.md, replacing existing ones."""
    text = json.dumps(card, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    for name, content in (("card.json", text), ("README.md", readme(card))):
        (folder / name).unlink(missing_ok=True)  # a read-only one can be replaced, not rewritten
        (folder / name).write_text(content, encoding="utf-8")


def readme(card: dict[str, Any]) -> str:
    """Render the card as Markdown, with the front matter that `datasets.load_dataset` reads."""
    facts = card.get("decontamination")  # versions published by older code have none
    style = response_style_of(card)
    return render_markdown(
        "warehouse.versions",
        "dataset_card.md.jinja",
        card=card,
        style=style,
        style_meaning=_STYLES[style] if style else "",
        ways=sorted(facts["matches"], key=lambda way: [*METHODS, way].index(way)) if facts else (),
        table_versions=", ".join(f"{k} {v}" for k, v in sorted(card["table_versions"].items())),
    )
