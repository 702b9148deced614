"""Who is told that a run failed: the blocks are called, and Prefect is given two automations."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.events.schemas.automations import Posture
from pydantic import SecretStr

from flows.orchestration import notifications
from flows.orchestration.smtp_email import SmtpEmail
from tests.support.receivers import Receiver

FAILED = {f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[Automation]:
    """The automations that Prefect would be given."""
    given: list[Automation] = []
    monkeypatch.setattr(notifications, "_apply", given.append)
    return given


def test_a_test_tells_everybody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Receiver() as receiver:
        mail = f"mailto://{receiver.smtp}?from=a@example.com&to=team@example.com"
        blocks = {
            "vigorl-webhook": Webhook(url=SecretStr(receiver.webhook)),
            "vigorl-email": SmtpEmail(url=SecretStr(mail)),
        }
        monkeypatch.setattr(notifications, "_blocks", lambda: blocks)
        notifications._test()
        assert receiver.called == [{"text": "vigorl: failures of runs will be told here"}]
        (letter,) = receiver.mail
        assert "Subject: vigorl: failures of runs will be told here" in letter
    assert capsys.readouterr().out == "vigorl-webhook: told\nvigorl-email: told\n"


def test_a_failure_is_told_at_once_to_each_address(
    monkeypatch: pytest.MonkeyPatch, applied: list[Automation]
) -> None:
    blocks = {name: SimpleNamespace(_block_document_id=uuid4())
              for name in ("vigorl-webhook", "vigorl-email")}  # fmt: skip
    monkeypatch.setattr(notifications, "_blocks", lambda: blocks)
    assert notifications.tell_failures() == list(blocks)
    (failures,) = applied
    trigger: Any = failures.trigger
    assert (failures.name, set(trigger.expect)) == ("vigorl: a run failed", FAILED)
    assert (trigger.posture, trigger.threshold) == (Posture.Reactive, 1)
    assert trigger.within == timedelta(0)
    assert [action.block_document_id for action in failures.actions] == [
        block._block_document_id for block in blocks.values()
    ]
    applied.clear()
    monkeypatch.setattr(notifications, "_blocks", dict)
    assert notifications.tell_failures() == [] and not applied


def test_a_run_without_a_sign_of_life_for_five_minutes_has_crashed(
    applied: list[Automation],
) -> None:
    notifications.end_silent_runs()
    (silent,) = applied
    trigger: Any = silent.trigger
    assert (trigger.posture, trigger.threshold) == (Posture.Proactive, 1)
    assert trigger.within == timedelta(minutes=5)
    assert trigger.for_each == {"prefect.resource.id"}
    beat = "prefect.flow-run.heartbeat"
    ended = {f"prefect.flow-run.{state}" for state in ("Completed", "Cancelled")}
    assert trigger.after == {beat} and trigger.expect == {beat, *FAILED, *ended}
    (action,) = silent.actions
    assert (action.state, action.force) == (StateType.CRASHED, False)
    assert "no sign of life for 300 s" in action.message
