"""Shows the rows of published dataset versions, which are files and not in a table, as a view.

    files = create_dataset_rows(con, warehouse, "CREATE VIEW")     # con has `dataset_versions`

Versions that `dataset_versions` does not list yet, or whose files are gone, have no rows here.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.dataset

from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse

VIEW = "_dataset_rows"
COLUMNS = {
    "trace_id": "VARCHAR", "question_id": "VARCHAR", "tree_id": "VARCHAR", "task": "VARCHAR",
    "split": "VARCHAR", "family": "VARCHAR", "kind": "VARCHAR", "origin": "VARCHAR",
    "model": "VARCHAR", "answer": "VARCHAR", "reward": "DOUBLE",
}  # fmt: skip
"""Of rows.parquet, every version of it; the others are in the tables under the same trace_id."""
DESCRIBED_IN = ("traces", "questions")
"""Tables that describe these columns."""


def create_dataset_rows(
    con: duckdb.DuckDBPyConnection, warehouse: Warehouse, create: str, *, listing: bool = False
) -> list[str]:
    """Create the view in `con`, which shows `dataset_versions`; return the files that it reads.

    Args:
        create: the words that create a view.
        listing: every view is made, with its comment, to be listed or kept: a damaged file is
            passed over then. `vigorl warehouse check` names it.
    """
    listed = con.execute("SELECT name, version FROM dataset_versions ORDER BY ALL").fetchall()
    files: list[str] = []
    selects = []
    for number, (name, version) in enumerate(listed):
        key = f"datasets/{name}/v{version}/rows.parquet"
        if not warehouse.objects.exists(key):
            continue
        if listing and not _readable(warehouse, key):
            continue
        if warehouse.is_s3:
            rows = f"_stored_version_{number}"
            con.register(rows, _stored(warehouse, key))
        else:
            files.append(f"{warehouse.root}/{key}")
            rows = f"read_parquet({quoted(files[-1])})"
        columns = ", ".join(COLUMNS)
        which = f"{quoted(name)} AS name, {version} AS version"
        selects.append(f"SELECT {which}, {columns} FROM {rows}")
    types = {"name": "VARCHAR", "version": "BIGINT", **COLUMNS}
    nothing = ", ".join(f"NULL::{kind} AS {column}" for column, kind in types.items())
    statement = " UNION ALL ".join([f"SELECT {nothing} WHERE false", *selects])
    con.execute(f"{create} {VIEW} AS {statement}")
    if listing:
        con.execute(f"COMMENT ON VIEW {VIEW} IS 'The rows of the files of dataset versions.'")
    return files


def _readable(warehouse: Warehouse, key: str) -> bool:
    try:
        return set(COLUMNS) <= set(_stored(warehouse, key).schema.names)
    except (pa.ArrowException, OSError):
        return False


def _stored(warehouse: Warehouse, key: str) -> pyarrow.dataset.Dataset:
    folder, _, file = key.rpartition("/")
    return pyarrow.dataset.dataset([file], filesystem=warehouse.arrow_folder(folder))
