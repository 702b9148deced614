"""The tables as a version was cut from them, asked about the traces that two versions do not share.

    with State(warehouse, version, differing) as state:
        state.chosen_by(sql)      # which of these traces a statement chooses, asked of that state
        state.fact("trace id")    # what the tables said of one of them

Only the differing traces are asked about, and everything about all of them in a few queries.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Self

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from warehouse.query.catalog import connect
from warehouse.query.sql_guard import QueryError
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.versions.selection import choose
from warehouse.versions.versions import Version, read_tables

Row = dict[str, Any]

_FACTS = """
SELECT d.trace_id, t.trace_id IS NOT NULL AS there, l.trace_id IS NOT NULL AS latest,
       t.linearizer, n.newest, n.cuts, r.run_id AS tree_run, t.run_id AS trace_run,
       q.question_id IS NOT NULL AS question, r.tree_id IS NOT NULL AS tree,
       {'split': q.split, 'family': q.family, 'source': q.source, 'licence': q.licence,
        'kind': t.kind, 'reward': t.reward, 'task': t.task, 'origin': t.origin} AS told
FROM _differing d
LEFT JOIN traces t USING (trace_id)
LEFT JOIN (SELECT trace_id FROM latest_traces) l USING (trace_id)
LEFT JOIN questions q ON q.question_id = d.question_id
LEFT JOIN trees r ON r.tree_id = d.tree_id
LEFT JOIN (
    SELECT tree_id, count(*) AS cuts,
           max_by(linearizer, try_cast(split_part(linearizer, '/', 2) AS INT)) AS newest
    FROM traces GROUP BY tree_id
) n ON n.tree_id = d.tree_id
"""


@dataclass(frozen=True, slots=True)
class Fact:
    """What one state of the tables said of one trace."""

    row: Row
    verdicts: dict[str, Row] = field(default_factory=dict)
    """Each filter's latest word, by the filter's name: version, keep, reason."""
    revoked: tuple[Row, ...] = ()
    """The revocations that reach it: subject, value, reason."""

    @property
    def there(self) -> bool:
        """Whether the trace is in the tables."""
        return bool(self.row["there"])


class State:
    """One version's tables, open for as long as they are needed."""

    def __init__(self, warehouse: Warehouse, version: Version, differing: pa.Table) -> None:
        self.version = version
        try:
            self.con = connect(warehouse, read_tables(version))
        except (DeltaError, duckdb.Error, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise WarehouseError(
                f"the tables {version.ref} was cut from can't be read as they were then: {first}"
            ) from None
        self.con.register("_differing", differing)
        self.chosen_by = cache(self._chosen_by)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.con.close()

    def fact(self, trace_id: str) -> Fact:
        """What the tables said of one of the differing traces."""
        return self._facts[trace_id]

    def _chosen_by(self, sql: str) -> frozenset[str] | None:
        """Those of the differing traces that `sql` chooses; None if it can't be asked here."""
        try:
            choose(self.con, sql)
        except QueryError:
            return None
        except WarehouseError:  # it chose nothing
            self.con.execute("CREATE OR REPLACE TEMP TABLE chosen (trace_id VARCHAR)")
        sql = "SELECT trace_id FROM chosen SEMI JOIN _differing USING (trace_id)"
        chosen = frozenset(trace_id for (trace_id,) in self.con.execute(sql).fetchall())
        self.con.execute("DROP TABLE chosen")
        return chosen

    @cached_property
    def _facts(self) -> dict[str, Fact]:
        verdicts: dict[str, dict[str, Row]] = defaultdict(dict)
        for row in self._rows(
            "SELECT trace_id, filter, version, keep, reason FROM latest_verdicts "
            "SEMI JOIN _differing USING (trace_id) ORDER BY filter"
        ):
            verdicts[row["trace_id"]][row["filter"]] = row
        revoked: dict[str, list[Row]] = defaultdict(list)
        for row in self._rows(
            "SELECT trace_id, subject, value, reason FROM revoked_traces "
            "SEMI JOIN _differing USING (trace_id) ORDER BY ALL"
        ):
            revoked[row["trace_id"]].append(row)
        return {
            (i := row["trace_id"]): Fact(row, verdicts.get(i, {}), tuple(revoked.get(i, ())))
            for row in self._rows(_FACTS)
        }

    def _rows(self, sql: str) -> list[Row]:
        try:
            return list(self.con.sql(sql).to_arrow_table().to_pylist())
        except duckdb.Error as error:
            first = str(error).strip().splitlines()[0]
            raise WarehouseError(
                f"the tables {self.version.ref} was cut from can't be read: {first}"
            ) from None
