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
from prefect.settings import PREFECT_API_URL, temporary_settings
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


def test_a_server_that_is_away_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["notifications", "--webhook", "http://127.0.0.1:9/x"])
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert notifications.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no Prefect server answers at http://127.0.0.1:9/api: start one with" in line


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


def test_addresses_are_kept_as_blocks_that_replace_those_before(
    monkeypatch: pytest.MonkeyPatch, applied: list[Automation]
) -> None:
    saved: list[tuple[str, str, bool]] = []

    def save(self: Any, name: str, overwrite: bool = False) -> None:
        saved.append((name, self.url.get_secret_value(), overwrite))

    for kind in (Webhook, SmtpEmail):
        monkeypatch.setattr(kind, "save", save)
    registered: list[bool] = []
    monkeypatch.setattr(SmtpEmail, "register_type_and_schema", lambda: registered.append(True))
    monkeypatch.setattr(notifications, "_blocks", dict)
    notifications.tell_failures()
    assert not saved
    hook, mail = "http://127.0.0.1:9/hook", "mailto://127.0.0.1:9?from=a@example.com&to=b@c.d"
    notifications.tell_failures(webhook=hook)
    assert saved == [("vigorl-webhook", hook, True)] and not registered
    notifications.tell_failures(email=mail)
    assert saved[1:] == [("vigorl-email", mail, True)] and registered == [True]


@pytest.mark.parametrize("missing", ["webhook", "email"])
def test_of_two_addresses_either_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def load(name: str) -> str:
        if missing in name:
            raise ValueError(f"there is no {name}")
        return name

    monkeypatch.setattr(notifications.Block, "load", load)
    other = {"webhook": "email", "email": "webhook"}[missing]
    assert list(notifications._blocks()) == [f"vigorl-{other}"]


def test_an_automation_takes_the_place_of_the_one_of_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    did: list[tuple[str, Any]] = []
    there: list[Any] = []

    def read(name: str) -> Any:
        if not there:
            raise ValueError(f"there is no {name}")
        return there[0]

    monkeypatch.setattr(Automation, "read", read)
    for name in ("create", "update"):
        monkeypatch.setattr(Automation, name, lambda self, name=name: did.append((name, self.id)))
    notifications.end_silent_runs()
    there.append(SimpleNamespace(id=uuid4()))
    notifications.end_silent_runs()
    assert did == [("create", None), ("update", there[0].id)]


def test_the_command_says_who_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], applied: list[Automation]
) -> None:
    told: list[tuple[Any, ...]] = []
    names: list[str] = []
    monkeypatch.setattr(notifications, "tell_failures", lambda *to: told.append(to) or names)
    monkeypatch.setattr(notifications, "_test", lambda: told.append(("test",)))

    def run(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["notifications", *words])
        assert notifications.main() == 0
        return capsys.readouterr().out

    assert run() == (
        "a run that is silent for 300 s is marked as crashed\na run that fails is told to: nobody\n"
    )
    names += ["vigorl-webhook", "vigorl-email"]
    monkeypatch.setattr(notifications, "entry_points", lambda **given: [given])
    said = run("--webhook", "http://h", "--email", "mailto://m", "--test")
    assert said.endswith("told to: vigorl-webhook, vigorl-email\n")
    assert told == [(None, None), ("http://h", "mailto://m"), ("test",)] and len(applied) == 2
    monkeypatch.setattr(notifications, "entry_points", lambda **given: [])
    with pytest.raises(SystemExit, match="2"):
        run("--email", "mailto://m")
    assert "the server can't load its block" in capsys.readouterr().err and len(told) == 3
