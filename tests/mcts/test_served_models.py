"""Which model a server serves: its identity, and the sentence where it is another."""

from __future__ import annotations

import pytest

from mcts.teachers.served_models import identify, listed

CARDS = {"qwen": {"root": "/weights"}, "llama": {"root": "llama"}, "models/pro": {}}


def test_an_identity_holds_what_changes_answers() -> None:
    assert identify("qwen", CARDS, "", {}) == "qwen@/weights"
    assert identify("llama", CARDS, "", {}) == "llama", "its root says nothing more"
    assert identify("llama", CARDS, "r2", {}) == "llama@r2"
    added = identify("llama", CARDS, "r2", {"reasoning_effort": "low"})
    assert added.startswith("llama@r2@fields-") and len(added.rpartition("-")[2]) == 12
    assert identify("llama", CARDS, "r2", {"reasoning_effort": "high"}) != added
    hashed = {"student@1f": {"root": "/where/ever"}}
    assert identify("student@1f", hashed, "", {}) == "student@1f", "a hash is more precise"


def test_a_name_is_meant_with_or_without_its_folder() -> None:
    assert identify("pro", CARDS, "", {}) == "pro"
    assert identify("models/pro", CARDS, "", {}) == "models/pro"


def test_a_model_that_is_not_served_is_told_with_those_that_are() -> None:
    with pytest.raises(
        LookupError, match=r"^qwen, llama, models/pro, not qwem; did you mean qwen\?$"
    ):
        identify("qwem", CARDS, "", {})
    with pytest.raises(LookupError, match=r"^qwen, llama, models/pro, not gpt\.$"):
        identify("gpt", CARDS, "", {})


def test_some_of_many_models_are_named_and_the_rest_counted() -> None:
    names = [f"m{i}" for i in range(12)]
    assert listed(names[:10]) == ", ".join(names[:10])
    assert listed(names[:11]) == f"{', '.join(names[:10])} and 1 more"
    assert listed(names) == f"{', '.join(names[:10])} and 2 more"
    assert listed([]) == "nothing"
