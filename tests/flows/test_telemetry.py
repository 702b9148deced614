"""Nothing is reported home, whichever library would, and whoever imported it first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.project_files import ROOT

SWITCHES = (
    "DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY",
    "RAY_USAGE_STATS_ENABLED", "VLLM_NO_USAGE_STATS",
)  # fmt: skip
# What says to Prefect that nobody is there who could be asked.
CI = ("CI", "CONTINUOUS_INTEGRATION", "BUILD_NUMBER", "GITHUB_ACTIONS", "GITLAB_CI")


def printed(code: str, **given: str) -> list[str]:
    env = {k: v for k, v in os.environ.items() if k not in (*SWITCHES, *CI, "HF_HUB_OFFLINE")}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**env, **given}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


TRL = """
import huggingface_hub  # as a model that is loaded first does
from huggingface_hub.utils import _telemetry, send_telemetry
from training.trainers import offline
_telemetry._start_telemetry_thread = lambda: print("sends")
send_telemetry("vigorl", library_name="trl")
offline()
send_telemetry("vigorl", library_name="trl")
"""
PREFECT = """
from prefect._internal.analytics.enabled import is_telemetry_enabled
print(is_telemetry_enabled())
import flows
print(is_telemetry_enabled())
"""


def test_a_training_reports_nothing_though_the_library_was_imported_before() -> None:
    assert printed(TRL) == ["sends"], "the first, before it was switched off"


def test_prefect_reports_nothing_once_a_flow_is_imported() -> None:
    assert printed(PREFECT) == ["True", "False"]


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_choice_of_ones_own_wins(switch: str) -> None:
    code = f"import os, flows; print(os.environ[{switch!r}])"
    off = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "RAY_USAGE_STATS_ENABLED": "0"}
    assert printed(code) == [off.get(switch, "1")]
    assert printed(code, **{switch: "mine"}) == ["mine"]
