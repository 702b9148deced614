"""Training questions that must not be asked in training: revoked, or known by an evaluation set.

    unfit = unfit_questions(warehouse, ["4f0c…", …])      # {"4f0c…": "revoked"}

Filters and publications keep such traces out of dataset versions. A training that asks a task's
questions directly, without a version, has to ask this. An evaluation set and how questions are
compared are those of `curation.filters.decontaminate`, with its default values.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from curation.filters.decontaminate import compare
from warehouse.query.dedup_inputs import TRAINS, compared_questions, perceptual_hashes
from warehouse.query.run_query import connect_trusted
from warehouse.storage.home import Warehouse

REVOKED = "revoked"
KNOWN = "known by an evaluation set"
_REVOKED = "SELECT DISTINCT question_id FROM _revoked_questions SEMI JOIN _ids USING (question_id)"


def unfit_questions(warehouse: Warehouse, question_ids: Collection[str]) -> dict[str, str]:
    """Return why each of these questions must not be trained on, of those that must not."""
    with connect_trusted(warehouse, ["questions", "_revoked_questions"]) as con:
        con.register("_ids", pa.table({"question_id": pa.array(list(question_ids), pa.string())}))
        con.execute("CREATE TEMP TABLE asked AS FROM questions SEMI JOIN _ids USING (question_id)")
        revoked = [name for (name,) in con.execute(_REVOKED).fetchall()]
        training = [one for some in compared_questions(con, TRAINS, "asked") for one in some]
        evaluation = [one for some in compared_questions(con, f"NOT {TRAINS}") for one in some]
    found = dict.fromkeys(revoked, REVOKED)
    if not training or not evaluation:
        return found
    images = {image for question in (*training, *evaluation) for image in question.image_ids}
    compared = compare(training, evaluation, perceptual_hashes(warehouse, images))
    return dict.fromkeys(compared.contaminated, KNOWN) | found
