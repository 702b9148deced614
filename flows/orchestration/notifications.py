"""Who is told when a run fails, and the end of runs that went silent: two automations of Prefect.

    python -m flows.orchestration.notifications --webhook https://hooks.example.com/services/T0/B0/x
    python -m flows.orchestration.notifications --email "mailtos://me:secret@example.com?to=team"
    python -m flows.orchestration.notifications --test        # tells them something now

Addresses are kept as blocks of Prefect, which the server reads when a run fails or crashes. Given
again they are replaced. Others, such as Slack's, can be added in Prefect's pages.

A run beats every `BEAT_S` seconds while its process lives (PREFECT_FLOWS_HEARTBEAT_FREQUENCY, which
`vigorl up` sets). One that was killed with its worker, on any machine, is marked as crashed after
`SILENT_S`, and that is told like any other failure.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from importlib.metadata import entry_points
from typing import Any, cast

from prefect.automations import Automation
from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.types import SecretDict
from pydantic import SecretStr

from flows.orchestration.smtp_email import SmtpEmail
from flows.settings_base import Problem
from flows.stages.shards.prefect_away import answering

BEAT_S = 30
"""Seconds between two signs of life of a run; Prefect takes no fewer."""
SILENT_S = 300
"""Seconds without one after which a run is marked as crashed: a busy machine may skip some."""

_FAILED = {f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}
_ENDED = _FAILED | {f"prefect.flow-run.{state}" for state in ("Completed", "Cancelled")}
_RUNS = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
_BEAT = "prefect.flow-run.heartbeat"
_TOLD, _SILENT = "vigorl: a run failed", "vigorl: a run went silent"

_SUBJECT = "{{ flow.name }}/{{ deployment.name }}: {{ flow_run.state.name }}"
_TEXT = f"{_SUBJECT}: {{{{ flow_run.state.message }}}} ({{{{ flow_run|ui_url }}}})"
# `text` is what chat programs show.
_PAYLOAD = """{
  "text": {{ (flow.name ~ "/" ~ deployment.name ~ ": " ~ flow_run.state.name ~ ": "
              ~ flow_run.state.message) | tojson }},
  "flow": {{ flow.name | tojson }},
  "run": {{ flow_run.name | tojson }},
  "state": {{ flow_run.state.name | tojson }},
  "url": {{ flow_run | ui_url | tojson }}
}"""


def tell_failures(webhook: str | None = None, email: str | None = None) -> list[str]:
    """Have failures of runs told to these addresses from now on; return the blocks' names.

    Addresses that were given before and are not given now stay.
    """
    if webhook:
        headers = SecretDict({"content-type": "application/json"})
        Webhook(url=SecretStr(webhook), headers=headers).save("vigorl-webhook", overwrite=True)
    if email:
        SmtpEmail.register_type_and_schema()
        SmtpEmail(url=SecretStr(email), notify_type="failure").save("vigorl-email", overwrite=True)
    found = _blocks()
    actions: list[Any] = []
    if block := found.get("vigorl-webhook"):
        actions.append(CallWebhook(block_document_id=block._block_document_id, payload=_PAYLOAD))
    if block := found.get("vigorl-email"):
        identity = block._block_document_id
        actions.append(SendNotification(block_document_id=identity, subject=_SUBJECT, body=_TEXT))
    if actions:
        trigger = EventTrigger(
            expect=_FAILED, match=_RUNS, posture=Posture.Reactive, threshold=1, within=timedelta(0)
        )
        _apply(Automation(name=_TOLD, trigger=trigger, actions=actions))
    return list(found)


def end_silent_runs() -> None:
    """Have runs marked as crashed whose process gives no sign of life any more."""
    trigger = EventTrigger(
        after={_BEAT}, expect={_BEAT, *_ENDED}, match=_RUNS, for_each={"prefect.resource.id"},
        posture=Posture.Proactive, threshold=1, within=timedelta(seconds=SILENT_S),
    )  # fmt: skip
    message = f"it gave no sign of life for {SILENT_S} s: its process, or its machine, is gone"
    action = ChangeFlowRunState(
        name="Crashed", state=StateType.CRASHED, message=message, force=False
    )
    _apply(Automation(name=_SILENT, trigger=trigger, actions=[action]))


def _blocks() -> dict[str, Any]:
    """Return the blocks that addresses are kept in, by name."""
    found: dict[str, Any] = {}
    for slug, name in (("webhook", "vigorl-webhook"), (SmtpEmail._block_type_slug, "vigorl-email")):
        try:
            found[name] = Block.load(f"{slug}/{name}")
        except ValueError:
            continue
    return found


def _apply(automation: Automation) -> None:
    """Create an automation, or replace the one of its name."""
    try:
        automation.id = cast(Automation, Automation.read(name=automation.name)).id
    except ValueError:
        automation.create()
    else:
        automation.update()


def _test() -> None:
    """Tell everybody something now."""
    import asyncio

    for name, block in _blocks().items():
        text = "vigorl: failures of runs will be told here"
        if isinstance(block, Webhook):
            asyncio.run(block.call({"text": text})).raise_for_status()
        else:
            with block.raise_on_failure():
                block.notify(text, subject=text)
        print(f"{name}: told")


def main() -> int:
    """Run the command; its status."""
    parser = argparse.ArgumentParser(prog="python -m flows.orchestration.notifications")
    parser.add_argument("--webhook", help="URL that is called with JSON when a run fails")
    parser.add_argument(
        "--email", help="mailtos://USER:PASSWORD@HOST?to=ADDRESS, or as Apprise has it"
    )
    parser.add_argument("--test", action="store_true", help="tell all of them something now")
    given = parser.parse_args()
    if given.email and not entry_points(group="prefect.collections", name="vigorl"):
        parser.error(
            "--email: the server can't load its block: `make setup`, then `vigorl up` anew"
        )
    try:
        with answering():
            _set_up(given.webhook, given.email)
    except Problem as problem:
        print(f"{parser.prog}: {problem}", file=sys.stderr)
        return 2
    if given.test:
        _test()
    return 0


def _set_up(webhook: str | None, email: str | None) -> None:
    end_silent_runs()
    print(f"a run that is silent for {SILENT_S} s is marked as crashed")
    told = tell_failures(webhook, email)
    print(f"a run that fails is told to: {', '.join(told) or 'nobody'}")


if __name__ == "__main__":
    sys.exit(main())
