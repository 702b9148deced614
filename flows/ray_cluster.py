"""Joins a Ray cluster, or starts one on this machine.

    ray = join_ray("on", "head:6379")        # of another machine
    ray = join_ray("on")                     # RAY_ADDRESS's, the one that runs here, or a new one

`ray start --head` asks everybody for a token where one lies (`~/.ray/auth_token`, which Ray makes
when it first starts a cluster by itself), but others send theirs only in the mode `token`. So that
mode is taken where a token lies and no mode is set; a cluster without tokens takes it as well. Ray
reads the mode once, at its import: where something else imported it before, the mode stays, or a
cluster started here would ask for a token that this process does not send.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.settings_base import Problem


def join_ray(option: str, address: str | None = None, **settings: Any) -> Any:
    """Import Ray and connect this process; return the module.

    Args:
        option: what Ray is needed for, as problems name it.
        address: of the cluster's head, or `ray://…`.
        settings: more of `ray.init`.

    Raises:
        Problem: Ray is not installed, or there is no cluster.
    """
    token = _has_token()
    if token and "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError:
        raise Problem(f"{option}: Ray is not installed here: pip install 'vigorl[ray]'") from None
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "include_dashboard": False,
    }
    try:
        ray.init(address, **quiet, **settings)
    except Exception as error:  # Ray's own are bare ones, such as when it starts too slowly
        reason = str(error).strip().splitlines()[0]
        where = address or ("RAY_ADDRESS" if "RAY_ADDRESS" in os.environ else "this machine")
        hint = "" if token else "; if its head has a token, ~/.ray/auth_token must be here too"
        raise Problem(f"{option}: no Ray cluster answers at {where}: {reason}{hint}") from None
    with suppress(AttributeError):  # what is private may change
        # Or Ray would tell each loss, which is made good, in some lines of its own on standard
        # output, whatever `log_to_driver` is (2.60).
        ray._private.worker._worker_logs_enabled = False
    return ray


def _has_token() -> bool:
    """Tell whether Ray finds a token here, by its own rules."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return (Path(named) if named else Path.home() / ".ray" / "auth_token").is_file()
