"""What a version's card says: counts, funnel, teachers, spaces and licences, as plain values.

card = make_card(con, rows, {"name": "sat2-sft", "sql": …})      # `chosen` names the traces
"""

from __future__ import annotations

from typing import Any

import duckdb

from warehouse.versions.bundle import FORMAT, Rows


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
        **_as_told(rows, about),
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


def _as_told(rows: Rows, about: dict[str, Any]) -> dict[str, Any]:
    """What of these facts a variant changes: the tables know of the chains as they were made."""
    if not about.get("variant"):
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
