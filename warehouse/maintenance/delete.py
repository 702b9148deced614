"""Deletes a source from the warehouse for good: its rows, its images, and versions that hold it.

    deletion = plan(warehouse, "sat2-leak")       # what would be deleted; nothing is touched
    delete_source(warehouse, "sat2-leak")         # WarehouseError if a published version holds some
    delete_source(warehouse, "sat2-leak", force=True)          # those versions go as well

A revocation keeps a source in the history and out of new versions; this is for what must not be
kept. First the revocation is recorded, so that versions published from now on leave the source out.
Then rows are deleted, dependent ones first, so that repeating an interrupted deletion finds the
rest; the journal's records of its searches before the trees that name them; then the images that no
other source shows; then every replaced file of these tables, so that none of their earlier versions
can be read any more. No build and no publication should run meanwhile; a version that one
published is found at the end. What is out of reach is reported by name as far as it is known:
exports, models, journals of judges.

A version's bundle cannot lose single rows: it is identified by their hash. So a version that holds
some is deleted as a whole, its number stays taken, and models trained on it still name it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

from mcts.journal.segments import purge
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import image_key, remove_stale
from warehouse.tables.delta import WRITER, open_table, rewrite, scan
from warehouse.versions.revocations import revoke
from warehouse.versions.versions import ROWS, Version, list_versions, open_version

# Tables by the id they depend on, dependent ones first.
_TABLES_OF = {
    "trace_id": (
        "behaviors", "step_scores", "reviews", "predictions", "verdicts", "steps", "traces",
    ),
    "tree_id": ("responses", "rollouts", "nodes", "trees"),
    "question_id": ("predictions", "questions"),
    "image_id": ("image_hashes", "folds", "images"),
}  # fmt: skip
_OWNED = ("source", "licence", "run_id")
"""What an image has of the question that it was first imported with."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What belongs to a source."""

    ids: dict[str, pa.Array]
    """question_id, tree_id, trace_id, and image_id of the images that no other source shows."""
    versions: list[Version]
    """Published versions that hold some of it."""


def plan(warehouse: Warehouse, source: str) -> Deletion:
    """Find what belongs to a source; also the rest of an interrupted deletion.

    Raises:
        WarehouseError: nothing has that source, and nothing ever had that was deleted.
    """
    of_source = pc.field("source") == source
    questions = scan(warehouse, "questions", ["question_id"], of_source)["question_id"]
    trees = _belonging(warehouse, "trees", "tree_id", {"question_id": questions})
    parents = {"question_id": questions, "tree_id": trees}
    traces = _belonging(warehouse, "traces", "trace_id", parents)
    ids = {"question_id": questions, "tree_id": trees, "trace_id": traces}
    ids["image_id"] = _images(warehouse, source)
    held = [v for v in list_versions(warehouse) if _holds(warehouse, v, source)]
    revoked = pc.field("value") == source
    found = any(map(len, ids.values())) or held
    if not found and not scan(warehouse, "revocations", ["value"], revoked).num_rows:
        raise WarehouseError(f"nothing in the warehouse has the source {source!r}")
    return Deletion({name: _array(values) for name, values in ids.items()}, held)


def out_of_reach(warehouse: Warehouse, deletion: Deletion) -> list[str]:
    """What holds some of it, or was made from it, and stays: a sentence each."""
    refs = {version.ref for version in deletion.versions}
    sentences = []
    exports = scan(warehouse, "runs", ["params", "created_at"], pc.field("kind") == "export")
    for row in exports.to_pylist():
        params = json.loads(row["params"])
        if params["dataset"] in refs:
            where = " and ".join(filter(None, (params.get("out"), params.get("push_to"))))
            sentences.append(
                f"export of {params['dataset']} of {row['created_at']:%Y-%m-%d}: {where}"
            )
    gone = set(deletion.ids["question_id"].to_pylist())
    for model in scan(warehouse, "models", ["model_id", "dataset", "question_ids"]).to_pylist():
        if model["dataset"] in refs:
            sentences.append(f"model {model['model_id']}, trained on {model['dataset']}")
        elif used := gone.intersection(model["question_ids"] or ()):
            sentences.append(f"model {model['model_id']}, trained on {len(used)} of its questions")
    judges = warehouse.journal_dir / "judge"
    if any(judges.glob("*.jsonl")):
        sentences.append(f"{judges}: journals of judges name no source; the folder can be removed")
    answers = warehouse.journal_dir / "evaluate"
    if any(answers.glob("*.jsonl")):
        sentences.append(f"{answers}: journals of evaluations name no source either")
    if rejected := warehouse.objects.keys("rejects"):
        sentences.append(f"{len(rejected)} lists below rejects/, whose reasons may quote its rows")
    if dropped := warehouse.objects.keys("inbox"):
        sentences.append(f"{len(dropped)} files below inbox/, which may be its own")
    shown = [key for key in warehouse.objects.keys("retrain") if key.endswith("/report.html")]
    if shown:
        sentences.append(
            f"{len(shown)} reports of retraining cycles below retrain/, which may show some; "
            "`vigorl models report` makes them again"
        )
    return sentences


def delete_source(
    warehouse: Warehouse,
    source: str,
    *,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Delete all that belongs to a source, and report each step.

    Args:
        force: delete the published versions that hold some of it, too.

    Raises:
        WarehouseError: nothing has that source, or a version holds some and `force` is not given,
            also one that was published meanwhile.
    """
    deletion = plan(warehouse, source)
    if deletion.versions and not force:
        named = ", ".join(version.ref for version in deletion.versions)
        raise WarehouseError(f"published versions hold {source}: {named}; --force deletes them too")
    stays = out_of_reach(warehouse, deletion)  # before the rows that it is read from are gone
    revoke(warehouse, "source", source, "deleted with all its rows")
    for version in deletion.versions:
        _drop_version(warehouse, version, source)
        report(f"dataset {version.ref} is deleted")
    ids = set(deletion.ids["tree_id"].to_pylist())
    gone = purge(warehouse.journal_dir, ids, warehouse.journal_store)
    report(f"{gone} responses deleted from the journal")
    if kept := _hand_over(warehouse, source):
        report(f"{kept} images that others show are theirs now")
    deletion.ids["image_id"] = _images(warehouse, source)  # imports may have gone on meanwhile
    for image_id in deletion.ids["image_id"].to_pylist():  # while rows still say which they are
        warehouse.objects.delete(image_key(image_id))
    report(f"{len(deletion.ids['image_id'])} images deleted")
    for key, names in _TABLES_OF.items():
        for name in names:
            if gone := _delete_rows(warehouse, name, key, deletion.ids[key]):
                report(f"{name}: {gone} rows deleted")
    for name in sorted({name for names in _TABLES_OF.values() for name in names}):
        if delta := open_table(warehouse, name):
            delta.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    report("earlier versions of these tables can't be read any more")
    if left := clear_partial(warehouse, older_than_s=60.0):
        report(f"{left} files and folders of killed writers deleted")
    for sentence in stays:
        report(f"not reached: {sentence}")
    _ensure_images(warehouse, source, deletion.ids["image_id"])
    late = [version for version in list_versions(warehouse) if _holds(warehouse, version, source)]
    if late and not force:
        named = ", ".join(version.ref for version in late)
        raise WarehouseError(
            f"versions that hold {source} were published while it was deleted: {named}; --force "
            "deletes them too"
        )
    for version in late:
        _drop_version(warehouse, version, source)
        report(f"dataset {version.ref} is deleted")


def last_deletion(delta: DeltaTable) -> int:
    """Return the version of a table at which files were last removed for good; -1 without any.

    The log says so: compaction keeps the files of some time at least.
    """
    for commit in delta.history():
        kept = commit.get("operationParameters", {}).get("specifiedRetentionMillis")
        if commit.get("operation") == "VACUUM START" and kept == "0":
            return int(commit["version"])
    return -1


def delete_rows(warehouse: Warehouse, name: str, where: str) -> None:
    """Delete the rows of a table that match an SQL condition; its older versions keep them.

    Raises:
        WarehouseError: other writers overtook every attempt.
    """

    def delete(delta: DeltaTable) -> None:
        # Replaced by nothing: `DeltaTable.delete` writes texts as views, which pyarrow does not
        # compare with texts.
        nothing = delta.to_pyarrow_dataset().schema.empty_table()
        write_deltalake(delta, nothing, mode="overwrite", predicate=where, writer_properties=WRITER)

    rewrite(warehouse, name, delete)


def _belonging(warehouse: Warehouse, table: str, key: str, ids: dict[str, pa.Array]) -> pa.Array:
    """Keys of the rows that refer to one of the ids."""
    where = None
    for column, values in ids.items():
        named = pc.field(column).isin(_array(values))
        where = named if where is None else where | named
    return scan(warehouse, table, [key], where)[key]


def _images(warehouse: Warehouse, source: str) -> pa.Array:
    """Images of the source, and of its questions, that no question of another source shows."""
    of_source = pc.field("source") == source
    mine = scan(warehouse, "images", ["image_id"], of_source)["image_id"].to_pylist()
    mine += _shown(warehouse, of_source)
    return pa.array(sorted(set(mine) - set(_shown(warehouse, _not_of(source)))), pa.string())


def _not_of(source: str) -> pc.Expression:
    return pc.field("source").is_null() | (pc.field("source") != source)


def _ensure_images(warehouse: Warehouse, source: str, deleted: pa.Array) -> None:
    """Check that nothing was imported about an image in the moment in which it was deleted.

    Raises:
        WarehouseError: there are such questions. Their import, repeated, brings the images back.
    """
    asked = scan(warehouse, "questions", ["source", "image_ids"], _not_of(source)).to_pylist()
    gone = set(deleted.to_pylist())
    late = sorted({str(row["source"]) for row in asked if gone.intersection(row["image_ids"])})
    if late:
        raise WarehouseError(
            f"{', '.join(late)} was imported while {source} was deleted, and shows images that are "
            "gone: import it again, which brings them back"
        )


def _hand_over(warehouse: Warehouse, source: str) -> int:
    """Give images that were imported with the source, and that others show, to one of these; return
    how many.

    They would be revoked with the source otherwise, and the others' traces with them.
    """
    of_source = pc.field("source") == source
    mine = set(scan(warehouse, "images", ["image_id"], of_source)["image_id"].to_pylist())
    columns = ["question_id", "image_ids", *_OWNED]
    asked = scan(warehouse, "questions", columns, _not_of(source)).sort_by("question_id")
    heirs: dict[str, dict[str, str | None]] = {}
    for row in asked.to_pylist():
        for image_id in mine.intersection(row["image_ids"]):
            heirs.setdefault(image_id, {name: row[name] for name in _OWNED})
    if not heirs:
        return 0
    given = pa.Table.from_pylist(
        [{"image_id": image_id, **owned} for image_id, owned in heirs.items()],
        pa.schema([(name, pa.string()) for name in ("image_id", *_OWNED)]),
    )

    def update(delta: DeltaTable) -> None:
        merged = delta.merge(
            given, "rows.image_id = heirs.image_id", source_alias="heirs", target_alias="rows",
            writer_properties=WRITER,
        )  # fmt: skip
        merged.when_matched_update({name: f"heirs.{name}" for name in _OWNED}).execute()

    rewrite(warehouse, "images", update)
    return len(heirs)


def clear_partial(warehouse: Warehouse, older_than_s: float) -> int:
    """Delete what writers that were killed left half-written; return how many files and folders.

    Args:
        older_than_s: seconds since it last changed.
    """
    if warehouse.is_s3:
        return 0
    return remove_stale(Path(warehouse.root, ".partial").glob("*"), older_than_s)


def _shown(warehouse: Warehouse, where: pc.Expression) -> list[str]:
    return pc.list_flatten(
        scan(warehouse, "questions", ["image_ids"], where)["image_ids"]
    ).to_pylist()


def _holds(warehouse: Warehouse, version: Version, source: str) -> bool:
    if source not in version.card["by_source"]:
        return False
    with open_version(warehouse, version, ROWS) as folder:
        sources = pq.read_table(folder / "rows.parquet", columns=["source"])["source"]
    return source in sources.unique().to_pylist()


def _drop_version(warehouse: Warehouse, version: Version, source: str) -> None:
    """Delete its card first, which makes it a version; what stays keeps its number taken."""
    keys = warehouse.objects.keys(version.prefix)
    warehouse.objects.put(f"{version.prefix}/deleted", f"it held rows of {source}\n".encode())
    for key in sorted(keys, key=lambda key: not key.endswith("/card.json")):
        if not key.endswith("/claim"):
            warehouse.objects.delete(key)


def _delete_rows(warehouse: Warehouse, name: str, key: str, ids: pa.Array) -> int:
    """Delete the rows with one of the ids in column `key`; return how many."""
    if not len(ids):
        return 0

    def delete(delta: DeltaTable) -> int:
        # A join, since a list of so many ids would be a statement of megabytes.
        merged = delta.merge(
            pa.table({key: ids}), f"rows.{key} = ids.{key}", source_alias="ids",
            target_alias="rows", writer_properties=WRITER,
        )  # fmt: skip
        return int(merged.when_matched_delete().execute()["num_target_rows_deleted"])

    return rewrite(warehouse, name, delete) or 0


def _array(values: pa.Array) -> pa.Array:
    """Distinct ids as one array."""
    return pa.array(values.unique().to_pylist(), pa.string())
