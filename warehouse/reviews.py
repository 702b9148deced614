"""People's reviews of traces: rows of `reviews`, and the verdicts that follow from them.

    store_review(warehouse, Review("t1", "ada", "wrong", "points at the other ball"), "r1", run_id)
    trace_ids = review_queue(warehouse, "ada", task="sat2", order="doubt", limit=200)

Nothing is changed: a person's newest review of a trace counts. The verdict on a whole trace has as
its version the number of its reviews, and follows from those alone, so two processes that store
reviews at once write the same verdicts, and a killed one leaves only what the next completes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from curation.filters.review import METHOD, REVIEW, Review, review_verdict
from warehouse.query.run_query import query_trusted
from warehouse.query.sql_guard import all_quoted, quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import verdict_row
from warehouse.tables.schema import Row

Order = Literal["doubt", "random"]

# A trace of each question first, so that an hour of reviewing sees many of them.
_QUEUE = """
SELECT trace_id FROM (
    SELECT *, md5(trace_id) AS drawn FROM review_queue
    ANTI JOIN (
        SELECT trace_id FROM latest_reviews WHERE reviewer = {reviewer} AND step IS NULL
    ) USING (trace_id)
    WHERE {of_task}
)
ORDER BY {order} LIMIT {limit}
"""
_ORDERS: dict[Order, str] = {
    "doubt": "row_number() OVER (PARTITION BY question_id ORDER BY doubt DESC, drawn), "
    "doubt DESC, drawn",
    "random": "drawn",
}
# Reviews of whole traces whose verdicts are not those of as many reviews.
_WITHOUT_VERDICT = f"""
SELECT trace_id FROM (
    SELECT trace_id, count(*) AS version FROM reviews WHERE step IS NULL GROUP BY trace_id
)
ANTI JOIN (SELECT trace_id, version FROM verdicts WHERE stage = '{REVIEW}')
    USING (trace_id, version)
"""


def review_queue(
    warehouse: Warehouse, reviewer: str, *, task: str | None, order: Order, limit: int
) -> list[str]:
    """Return the kept traces that a person has not reviewed, the most doubtful first or drawn."""
    statement = _QUEUE.format(
        reviewer=quoted(reviewer),
        of_task=f"task = {quoted(task)}" if task else "true",
        order=_ORDERS[order],
        limit=limit,
    )
    found: list[str] = query_trusted(warehouse, statement)["trace_id"].to_pylist()
    return found


def store_review(warehouse: Warehouse, review: Review, review_id: str, run_id: str) -> bool:
    """Store a review and what follows from it; return False where the id is stored already."""
    row = {
        "review_id": review_id,
        "trace_id": review.trace_id,
        "step": review.step,
        "reviewer": review.reviewer,
        "verdict": review.verdict,
        "comment": review.comment or None,
        "run_id": run_id,
    }
    added = insert_new(warehouse, "reviews", [row]) > 0
    if review.step is None:
        _store_verdicts(warehouse, [review.trace_id], run_id)
    return added


def reviews_by(warehouse: Warehouse, reviewer: str, trace_ids: Sequence[str]) -> list[Row]:
    """Return a person's newest reviews of these traces: trace_id, step, verdict, comment."""
    return query_trusted(
        warehouse,
        "SELECT trace_id, step, verdict, coalesce(comment, '') AS comment FROM latest_reviews "
        f"WHERE reviewer = {quoted(reviewer)} AND trace_id IN ({all_quoted(trace_ids) or 'NULL'})",
    ).to_pylist()


def complete_verdicts(warehouse: Warehouse, run_id: str) -> int:
    """Store the verdicts of reviews that lack theirs, as a killed process leaves them; how many."""
    lacking = query_trusted(warehouse, _WITHOUT_VERDICT)["trace_id"].to_pylist()
    return _store_verdicts(warehouse, lacking, run_id)


def _store_verdicts(warehouse: Warehouse, trace_ids: Sequence[str], run_id: str) -> int:
    if not trace_ids:
        return 0
    rows = query_trusted(
        warehouse,
        "SELECT trace_id, reviewer, verdict, coalesce(comment, '') AS comment, version "
        "FROM latest_reviews JOIN (SELECT trace_id, count(*) AS version FROM reviews "
        "WHERE step IS NULL GROUP BY trace_id) USING (trace_id) "
        f"WHERE step IS NULL AND trace_id IN ({all_quoted(trace_ids)}) "
        "ORDER BY trace_id, reviewer",
    ).to_pylist()
    reviews: dict[str, list[Review]] = {}
    versions: dict[str, int] = {}
    for row in rows:
        versions[row["trace_id"]] = row.pop("version")
        reviews.setdefault(row["trace_id"], []).append(Review(**row))
    made = [
        {
            **verdict_row(trace_id, review_verdict(said), versions[trace_id]),
            "stage": REVIEW,
            "method": METHOD,
            "run_id": run_id,
        }
        for trace_id, said in reviews.items()
    ]
    return insert_new(warehouse, "verdicts", made)
