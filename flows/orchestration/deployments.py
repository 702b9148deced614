"""What `prefect.yaml` needs on a Prefect server: work pools, deployments, a limit, automations.

    PREFECT_API_URL=http://prefect:4200/api python -m flows.orchestration.deployments

`vigorl up` has it done for its own server, the containers of `deploy/` for theirs. Repeating it
brings the server up to date.
"""

from __future__ import annotations

import subprocess
import sys

from flows.orchestration.gpu_slots import GPU_LIMIT
from flows.orchestration.local_server import PROJECT, WORKERS


def apply_deployments() -> None:
    """Make what is missing on the server of PREFECT_API_URL, and replace what differs.

    Raises:
        subprocess.CalledProcessError: Prefect refused something; it has printed why.
    """
    for pool in WORKERS.values():
        _prefect("work-pool", "create", pool, "--type", "process", "--overwrite")
    try:
        _prefect("gcl", "inspect", GPU_LIMIT, capture_output=True)
    except subprocess.CalledProcessError:  # else the user's limit stays
        _prefect("gcl", "create", GPU_LIMIT, "--limit", "1")
    _prefect("--no-prompt", "deploy", "--all")
    subprocess.run([sys.executable, "-m", "flows.orchestration.notifications"], check=True)


def _prefect(*words: str, capture_output: bool = False) -> None:
    command = [sys.executable, "-m", "prefect", *words]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=capture_output)


if __name__ == "__main__":
    try:
        apply_deployments()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
