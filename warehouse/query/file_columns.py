"""Tells from the Delta log alone whether all files of a table have all its columns.

    have_all_columns(delta)         # then DuckDB need not read thousands of footers to find out

Files of older code may lack columns, or fields of structs, that were added since. The log counts
the nulls of each column in each file, and a file without the column has no count. Lists are not
counted; but what is added comes last in a schema, so a list is in every file that has a column
behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType, StructType


def have_all_columns(delta: DeltaTable) -> bool:
    """Return whether every file has every column, and every field of it; False if unknown."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    counted = {name for name in actions.column_names if not actions[name].null_count}
    return _all_counted("null_count", delta.schema().fields, counted)


def _all_counted(prefix: str, fields: Sequence[Field], counted: set[str]) -> bool:
    if not isinstance(fields[-1].type, PrimitiveType | StructType):
        return False
    for field in fields:
        name = f"{prefix}.{field.name}"
        if isinstance(field.type, StructType):
            if not _all_counted(name, field.type.fields, counted):
                return False
        elif isinstance(field.type, PrimitiveType) and name not in counted:
            return False
    return True
