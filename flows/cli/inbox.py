"""`vigorl inbox`: import what was dropped into the watched folder, once or from now on."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from flows.parameters import takes
from flows.retrain_settings import InboxSettings


@takes(InboxSettings)
def inbox(
    settings: InboxSettings,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on looking, as `vigorl up` has it done.")
    ] = False,
) -> None:
    """Import the files that lie in the watched folder, each once; bad ones get a reason beside.

    vigorl inbox sat2 --folder s3://bucket/inbox
    """
    from flows.stages.retrain.inbox import Inbox
    from warehouse.storage.home import Warehouse

    warehouse = Warehouse.at(settings.home)
    found = Inbox(warehouse, settings.folder, report=_print)
    if settings.task or settings.folder:
        found.require_folder(settings.task)
    if watch:
        from flows.orchestration.watcher import watch_inbox

        watch_inbox(found, settings.still, settings.task)
    found.look(settings.task)
    while found.restless:
        time.sleep(settings.still)
        found.look(settings.task)


def _print(sentence: str) -> None:
    print(sentence, flush=True)
