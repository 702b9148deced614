"""Pushing an export: against a server that speaks the part of a hub's API that a push needs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.warehouse.test_versions import KEPT, fill
from warehouse.exports.hub import check_name, push
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.versions.versions import publish

TOKEN = "hf_letmein"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: what the last commit of each holds."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        repo = self.server.repos.get(self.repo(path))
        if repo is None:
            self.say(401, {"error": "Invalid username or password."})
        elif path.endswith("/refs"):
            tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": "c"} for t in repo["tags"]]
            self.say(200, {"branches": [], "converts": [], "tags": tags})
        elif "/tree/" in path:
            self.say(
                200,
                [
                    {"type": "file", "path": name, "size": len(data), "oid": "0"}
                    for name, data in repo["files"].items()
                ],
            )
        else:
            siblings = [{"rfilename": name} for name in repo["files"]]
            self.say(200, {"id": self.repo(path), "sha": "c0", "siblings": siblings, "tags": []})

    def do_DELETE(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.repos[self.repo(path)]["tags"].remove(path.rpartition("/")[2])
        self.say(200, {})

    def do_PUT(self) -> None:
        self.server.blobs[self.path.rpartition("/")[2]] = self.body()
        self.say(200, {})

    def do_POST(self) -> None:
        body = self.body()
        path = unquote(urlsplit(self.path).path)
        uploads = path.startswith("/verify")
        if not uploads and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.say(401, {"error": "Invalid token"})
        elif path == "/api/repos/create":
            payload = json.loads(body)
            name = f"{payload.get('organization') or 'me'}/{payload['name']}"
            there = name in self.server.repos
            if not there:
                self.server.repos[name] = {"files": {}, "commits": [], "tags": [], "made": payload}
            url = f"{self.server.url}/datasets/{name}"
            self.say(409 if there else 200, {"url": url, "id": name, "name": name})
        elif path == "/api/validate-yaml":
            front = json.loads(body)["content"].split("---")[1]
            self.say(200, {"errors": [], "warnings": []} if "license:" in front else {})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(".parquet") else "regular",
                    "shouldIgnore": False,
                }
                for f in files
            ]
            self.say(200, {"files": modes})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {
                    **o,
                    "actions": {
                        "upload": {"href": f"{self.server.url}/blobs/{o['oid']}"},
                        "verify": {"href": f"{self.server.url}/verify"},
                    },
                }
                for o in json.loads(body)["objects"]
            ]
            self.say(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self.commit(self.repo(path), body)
        elif "/tag/" in path:
            repo, tag = self.server.repos[self.repo(path)], json.loads(body)["tag"]
            if tag in repo["tags"]:  # which a client may take for one that is where it should be
                self.say(409, {"error": "Tag reference exists already"})
            else:
                repo["tags"].append(tag)
                repo["moved"] = len(repo["commits"])
                self.say(200, {})
        else:
            self.say(200 if uploads else 404, {})

    def commit(self, name: str, body: bytes) -> None:
        repo = self.server.repos[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repo["commits"].append(value["summary"])
            elif line["key"] == "file":
                repo["files"][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                data = self.server.blobs[value["oid"]]
                assert hashlib.sha256(data).hexdigest() == value["oid"]
                repo["files"][value["path"]] = data
            elif line["key"] == "deletedFile":
                del repo["files"][value["path"]]
        url = f"{self.server.url}/datasets/{name}/commit/c1"
        self.say(200, {"commitUrl": url, "commitOid": "c1", "success": True})

    def repo(self, path: str) -> str:
        return "/".join(path.removeprefix("/api/datasets/").split("/")[:2])

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def say(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def vigorl(home: str, hub: str, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_ENDPOINT": hub, "HF_TOKEN": token, "HF_HOME": f"{home}-hf"}
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET"):
        env.pop(name, None)
    command = [
        sys.executable,
        "-m",
        "flows.cli.app",
        "dataset",
        "export",
        *arguments,
        "--home",
        home,
    ]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


def test_an_export_is_pushed_in_one_commit_and_loads_from_what_arrived(
    hub: Hub, tmp_path: Path
) -> None:
    from datasets import load_dataset

    warehouse = fill(Warehouse(str(tmp_path / "home")), tmp_path / "in")
    publish(warehouse, "a", KEPT)
    pushed = vigorl(warehouse.root, hub.url, TOKEN, "a", "--push-to", "me/rooms")
    assert pushed.returncode == 0, pushed.stderr
    assert f"a@v1 as trl: {hub.url}/datasets/me/rooms" in pushed.stdout
    repo = hub.repos["me/rooms"]
    assert repo["made"]["type"] == "dataset"
    assert repo["made"].get("private") is True or repo["made"].get("visibility") == "private"
    assert (repo["commits"], repo["tags"]) == (["a@v1 as trl"], ["a-v1"])
    assert repo["files"]["README.md"].startswith(b'---\nlicense: "mit"\n')
    again = vigorl(
        warehouse.root, hub.url, TOKEN, "a", "--to", "llama-factory", "--push-to", "me/rooms",
        "--files", "jsonl",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert not any(path.endswith(".parquet") for path in repo["files"]), "the first export's data"
    assert len(repo["commits"]) == 2
    assert (repo["tags"], repo["moved"]) == (["a-v1"], 2), "to what was pushed last"
    for path, data in repo["files"].items():
        (tmp_path / "got" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "got" / path).write_bytes(data)
    got = load_dataset(str(tmp_path / "got"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(got) == 3 and got[0]["messages"][0]["role"] == "system"


def test_what_the_client_itself_refuses_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("Invalid metadata in README.md.\n- license must be one of ...")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    with pytest.raises(WarehouseError, match=r"refuses me/x: Invalid metadata in README\.md\.$"):
        push(tmp_path, "me/x", message="a", tag="a-v1")


@pytest.mark.parametrize(
    ("token", "repo", "why"),
    [
        ("hf_stranger", "me/rooms", "refuses me/rooms: 401"),
        (TOKEN, "rooms", "'rooms' is not a repository's name: write owner/name"),
        ("nobody there", "me/rooms", "can't be reached"),
    ],
)
def test_a_push_that_fails_says_why_and_leaves_nothing(
    hub: Hub, tmp_path: Path, token: str, repo: str, why: str
) -> None:
    warehouse = fill(Warehouse(str(tmp_path / "home")), tmp_path / "in", order=(0,))
    publish(warehouse, "a", KEPT)
    url = "http://127.0.0.1:9" if token == "nobody there" else hub.url
    failed = vigorl(warehouse.root, url, token, "a", "--push-to", repo)
    assert (failed.returncode, hub.repos) == (2, {})
    assert failed.stderr.count("\n") == 1 and why in failed.stderr


def test_a_repository_is_named_by_its_owner_and_name() -> None:
    check_name("me/rooms-v1.2")
    for name in ("rooms", "a/b/c", "../x", "me/ro..oms", "me/", ""):
        with pytest.raises(WarehouseError, match="write owner/name"):
            check_name(name)
