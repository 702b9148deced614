"""Events that set off the next stage: a version was published, a student was trained.

    emit_published(version)     # vigorl.dataset.published, of the resource vigorl.dataset.<name>
    emit_trained(row)           # vigorl.model.trained, of the resource vigorl.model.<name>

The deployments in `prefect.yaml` wait for them. Only flows emit them: a command at a terminal sets
nothing off.
"""

from __future__ import annotations

import json

from prefect.events import emit_event

from warehouse.tables.schema import Row
from warehouse.versions.versions import Version

PUBLISHED, TRAINED = "vigorl.dataset.published", "vigorl.model.trained"


def emit_published(version: Version) -> None:
    """Announce a dataset version."""
    emit_event(
        PUBLISHED,
        resource={"prefect.resource.id": f"vigorl.dataset.{version.name}"},
        payload={"version": version.ref, "rows": version.n_rows},
    )


def emit_trained(row: Row) -> None:
    """Announce a trained model; `vigorl.kind` says by which training, `vigorl.dataset` on versions
    of which name: a deployment of one task waits for those of its own.

    A process reward model is no student: under a name of its own it sets off no evaluation.
    """
    kind = json.loads(row["recipe"])["kind"]
    noun, dataset = "prm" if kind == "prm" else "model", row["dataset"] or ""
    emit_event(
        TRAINED,
        resource={
            "prefect.resource.id": f"vigorl.{noun}.{row['name']}",
            "vigorl.kind": kind,
            "vigorl.dataset": dataset.partition("@")[0],
        },
        payload={"model": row["name"], "dataset": dataset, "kind": kind},
    )
