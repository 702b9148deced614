"""Putting an export on a hub as a data set repository: one folder, one commit, one tag.

    go_online()                                          # before anything imports huggingface_hub
    url = push(Path("export"), "me/sat2-sft", message="sat2-sft@v3 for trl", tag="sat2-sft-v3")

The hub is huggingface.co, or what HF_ENDPOINT names; the token is HF_TOKEN's, or that of `hf auth
login`. A repository is made private unless told otherwise. What an earlier push left of data goes
in the same commit, so a repository holds one export; its tags keep the earlier ones.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from warehouse.storage.home import WarehouseError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OURS = ["data/**", "images/**", "dataset_info.json"]


def check_name(repo: str) -> None:
    """WarehouseError unless `repo` is `owner/name`."""
    if not _NAME.fullmatch(repo) or ".." in repo or "--" in repo:
        raise WarehouseError(f"{repo!r} is no repository's name: write owner/name")


def go_online() -> None:
    """Let this process reach the hub; else models and data are named by folder, not fetched."""
    if "huggingface_hub" not in sys.modules:
        os.environ["HF_HUB_OFFLINE"] = "0"
        if os.environ.get("HF_ENDPOINT", "https://huggingface.co") != "https://huggingface.co":
            # Another hub can't be expected to have its storage protocol.
            os.environ.setdefault("HF_HUB_DISABLE_XET", "1")


def push(folder: Path, repo: str, *, message: str, tag: str, public: bool = False) -> str:
    """Put the files of `folder` into the data set repository `repo`; its address.

    Raises:
        WarehouseError: the hub refuses, cannot be reached, or nobody is logged in.
    """
    check_name(repo)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi()
    try:
        made = api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
        done = api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            repo_type="dataset",
            commit_message=message,
            delete_patterns=_OURS,
        )
        api.create_tag(made.repo_id, tag=tag, revision=done.oid, repo_type="dataset", exist_ok=True)
    except LocalTokenNotFoundError:
        raise WarehouseError(f"{api.endpoint} knows nobody: set HF_TOKEN, or log in") from None
    except OfflineModeIsEnabled:
        raise WarehouseError("HF_HUB_OFFLINE is set: nothing can be pushed") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = error.server_message or str(error).strip().splitlines()[0]
        hint = " (is HF_TOKEN allowed to write there?)" if status in (401, 403) else ""
        raise WarehouseError(f"{api.endpoint} refuses {repo}: {status}, {why}{hint}") from None
    except Exception as error:
        # Which of httpx's packages it asks with is its own affair.
        if not type(error).__module__.startswith("httpx"):
            raise
        raise WarehouseError(f"{api.endpoint} can't be reached: {error}") from None
    return f"{api.endpoint}/datasets/{made.repo_id}"
