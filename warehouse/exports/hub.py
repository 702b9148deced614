"""Pushes an export to a hub as a dataset repository: one folder, one commit, one tag.

    go_online()                                          # before anything imports huggingface_hub
    url = push(Path("export"), "me/sat2-sft", message="sat2-sft@v3 for trl", tag="sat2-sft-v3")

The hub is huggingface.co, or what HF_ENDPOINT names; the token is HF_TOKEN's, or that of `hf auth
login`. A repository is private by default. Data of an earlier push is deleted in the same commit,
so a repository holds one export; its tags keep the earlier ones. The tag of a version that is
pushed again, in another format maybe, is moved to what was pushed last.
"""

from __future__ import annotations

import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

from warehouse.storage.home import WarehouseError, first_line

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_EXPORTED = ["data/*", "images/*", "dataset_info.json", "*.yaml", "reward.py"]


def check_name(repo: str) -> None:
    """WarehouseError unless `repo` is `owner/name`."""
    if not _NAME.fullmatch(repo) or ".." in repo or "--" in repo:
        raise WarehouseError(f"{repo!r} is not a repository's name: write owner/name")


def go_online() -> None:
    """Let this process reach the hub; otherwise it is offline, and models and data are folders."""
    if "huggingface_hub" not in sys.modules:
        os.environ["HF_HUB_OFFLINE"] = "0"
        if os.environ.get("HF_ENDPOINT", "https://huggingface.co") != "https://huggingface.co":
            # Another hub can't be expected to have its storage protocol.
            os.environ.setdefault("HF_HUB_DISABLE_XET", "1")


def push(folder: Path, repo: str, *, message: str, tag: str, public: bool = False) -> str:
    """Push the files of `folder` to the dataset repository `repo`; return its address.

    Raises:
        WarehouseError: the hub refuses, can't be reached, or there is no token.
    """
    check_name(repo)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi()
    try:
        created = api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
        new = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))
               if path.is_file()}  # fmt: skip
        there = api.list_repo_files(created.repo_id, repo_type="dataset")
        gone = [n for n in there if n not in new and any(fnmatch(n, p) for p in _EXPORTED)]
        # Not `upload_folder`, which begins with what is to be deleted where files are many.
        commit = api.create_commit(
            created.repo_id,
            [
                *(CommitOperationDelete(path_in_repo=name) for name in gone),
                *(CommitOperationAdd(name, path) for name, path in new.items()),
            ],
            commit_message=message,
            repo_type="dataset",
        )
        if any(
            ref.name == tag for ref in api.list_repo_refs(created.repo_id, repo_type="dataset").tags
        ):
            api.delete_tag(created.repo_id, tag=tag, repo_type="dataset")
        api.create_tag(created.repo_id, tag=tag, revision=commit.oid, repo_type="dataset")
    except LocalTokenNotFoundError:
        raise WarehouseError(f"{api.endpoint} needs a token: set HF_TOKEN, or log in") from None
    except OfflineModeIsEnabled:
        raise WarehouseError("HF_HUB_OFFLINE is set: nothing can be pushed") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = error.server_message or first_line(error)
        hint = " (is HF_TOKEN allowed to write there?)" if status in (401, 403) else ""
        raise WarehouseError(f"{api.endpoint} refuses {repo}: {status}, {why}{hint}") from None
    except ValueError as error:  # of what it checks itself, the README's head among it
        raise WarehouseError(f"{api.endpoint} refuses {repo}: {first_line(error)}") from None
    except Exception as error:
        # huggingface_hub may use any of httpx's packages.
        if not type(error).__module__.startswith("httpx"):
            raise
        raise WarehouseError(f"{api.endpoint} can't be reached: {error}") from None
    return f"{api.endpoint}/datasets/{created.repo_id}"
