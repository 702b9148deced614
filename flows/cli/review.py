"""`vigorl review`: a person looks at traces in a browser and says which are right."""

from __future__ import annotations

from flows.cli.interrupts import personal_limits
from flows.cli.printing import existing_warehouse
from flows.parameters import takes
from flows.review.settings import ReviewSettings


@takes(ReviewSettings)
def review(settings: ReviewSettings) -> None:
    """Review traces in a browser; more that find one wrong than right drop it.

    vigorl review sat2 --order random
    """
    from flows.review.run_review import review as run

    existing_warehouse(settings.home)
    reviewed = run(settings, ready=_ready, limits=personal_limits(settings.timeout))
    print(reviewed.sentence())


def _ready(address: str, traces: int) -> None:
    print(f"{traces} traces to review: open {address}", flush=True)
    print("Every verdict is stored at once; Ctrl-C ends.", flush=True)
