"""The columns of what keeps data sets clean: perceptual hashes, and the split by picture.

Read by `warehouse.tables.schema`. Each entry: name, sentence, key columns, columns (name, type,
sentence), parent table.
"""

from __future__ import annotations

HYGIENE_TABLES: tuple[tuple[str, str, tuple[str, ...], str, str | None], ...] = (
    (
        "image_hashes",
        "What one picture looks like, in 64 bits: alike pictures differ in few of them.",
        ("image_id", "method"),
        """
        image_id        string   The picture (see images).
        method          string   Name and version of the hash, such as dct-phash/1.
        hash            string   Its 64 bits as 16 hex digits; null for a blank picture.
        """,
        None,
    ),
    (
        "folds",
        "Where a training picture stands between validation and training; the newest row counts.",
        ("image_id", "version"),
        """
        image_id        string   The picture (see images).
        version         int      1, and one more each time its group or its place has changed.
        group_id        string   Its group: pictures alike, or of one question; the smallest id.
        place           float    Of the group, 0 to 1: any share's validation lies below it.
        """,
        None,
    ),
)
