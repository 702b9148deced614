"""Joining a Ray cluster: the token its head may ask for, and what is said when none answers."""

import os
import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest

from flows.ray_cluster import join_ray
from flows.settings_base import Problem


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """What a stand-in for Ray, not imported yet, was given: without a token or a mode here."""
    given = {}

    class Finder:
        def find_spec(self, name, path=None, target=None):
            return ModuleSpec("ray", self) if name == "ray" else None

        def create_module(self, spec):
            return None

        def exec_module(self, module):
            given["mode"], module.init = os.environ.get("RAY_AUTH_MODE"), init

    def init(address, **settings):
        given.update(settings, address=address, inherited=os.environ.get("RAY_AUTH_MODE"))
        if address == "gone:1":
            raise ConnectionError("Failed to connect\nmore lines")

    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "to be restored")
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)
    del sys.modules["ray"]  # and what the test imports goes with it
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    return given


def token_at(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("secret")
    return str(path)


def test_without_a_token_no_mode_is_chosen(seen):
    join_ray("on", "head:6379", ignore_reinit_error=True)
    assert (seen["address"], seen["mode"], seen["ignore_reinit_error"]) == ("head:6379", None, True)


@pytest.mark.parametrize("where", ["home", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN"])
def test_where_a_token_lies_it_is_sent(seen, tmp_path, monkeypatch, where):
    if where == "home":
        token_at(tmp_path / ".ray" / "auth_token")
    elif where == "RAY_AUTH_TOKEN":
        monkeypatch.setenv(where, "secret")
    else:
        monkeypatch.setenv(where, token_at(tmp_path / "elsewhere" / "token"))
    join_ray("on", "head:6379")
    assert seen["mode"] == "token"


def test_a_mode_that_is_set_stays(seen, tmp_path, monkeypatch):
    token_at(tmp_path / ".ray" / "auth_token")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    join_ray("on", "head:6379")
    assert seen["mode"] == "disabled"


def test_a_mode_that_ray_did_not_see_is_not_left_to_the_cluster_it_starts(seen, tmp_path):
    """Ray reads the mode when it is imported; a head that it starts inherits what is set then."""
    import ray  # noqa: F401

    token_at(tmp_path / ".ray" / "auth_token")
    join_ray("on")
    assert seen["mode"] is seen["inherited"] is None


def test_a_cluster_that_does_not_answer_is_one_sentence(seen, tmp_path):
    token = "~/.ray/auth_token must be here too"
    with pytest.raises(Problem) as raised:
        join_ray("on", "gone:1")
    said = "on: no Ray cluster answers at gone:1: Failed to connect; if its head has a token, "
    assert str(raised.value) == said + token
    token_at(tmp_path / ".ray" / "auth_token")
    with pytest.raises(Problem) as raised:
        join_ray("ray", "gone:1")
    assert str(raised.value) == "ray: no Ray cluster answers at gone:1: Failed to connect"


def test_ray_that_is_not_installed_is_named(seen, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        Problem, match=r"ray: Ray is not installed here: pip install 'vigorl\[ray\]'"
    ):
        join_ray("ray")


def test_rays_own_lines_about_losses_stay_out_of_the_output(seen):
    import ray

    worker = SimpleNamespace(_worker_logs_enabled=True)
    ray._private = SimpleNamespace(worker=worker)
    join_ray("on", "head:6379")
    assert worker._worker_logs_enabled is False and seen["log_to_driver"] is False
