"""What commands say at their end, word for word, and the small sums behind the sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages.curate import Summary
from flows.stages.failures import describe_reasons
from flows.stages.judge import Judged
from flows.stages.replay import Replayed
from flows.stages.run_budget import describe_cost, describe_stop
from flows.stages.search import MOST_SAMPLES, TreeSlots, search_config
from flows.stages.unread_places import _help
from flows.teachers.resolve import resolve
from flows.teachers.spaces import checkpoint_space, server_space, space_by_name, space_options
from mcts.budget import Budget
from mcts.config import SearchConfig
from mcts.coordinates import CoordinateSpace
from warehouse.versions.selection import kept_statement

SPENT = {
    "requests": 8, "prompt_tokens": 4000, "completion_tokens": 1000, "seconds": 6.0,
    "crops": 3, "image_tokens": 700,
}  # fmt: skip


def test_a_build_is_summed_up_with_its_failures() -> None:
    summary = Summary("sat2", questions=9, right=5, traces=40, kept=30)
    assert summary.sentence() == (
        "9 questions searched, 5 trees with a right answer, 30 traces kept of 40"
    )
    failed = Summary("sat2", questions=9, failed=2).sentence()
    assert failed.startswith("9 questions searched (2 failed: --retry-failed tries again), 0 tre")
    assert "task = 'it''s'" in kept_statement("it's") and "split = 'train'" in kept_statement("t")


def test_a_replay_is_summed_up_with_what_differs() -> None:
    found = Replayed(9, same=4, new=["a", "b"], differing=["c"], missing={"d": "no response"})
    assert found.sentence().splitlines() == [
        "7 of 9 trees rebuilt from recorded responses: 4 are those of the warehouse, 2 are new, "
        "1 differ",
        "c differs from the warehouse's",
        "d cannot be rebuilt: no response",
    ]
    many = Replayed(9, differing=list("abcd"), missing=dict.fromkeys("efgh", "x"))
    assert len(many.sentence().splitlines()) == 1 + 3 + 3


def test_judging_is_summed_up_with_its_mean() -> None:
    assert Judged().sentence() == "there is nothing left to judge"
    assert Judged(3, 5, [0.5, 1.0]).sentence() == (
        "3 traces judged: 5 rows, 2 with a value, 0.750 on average"
    )
    assert Judged(3, 5).sentence() == "3 traces judged: 5 rows, 0 with a value"


@pytest.mark.parametrize(
    ("reason", "limit", "more"),
    [("seconds", 60.0, "the same command"), ("tokens", 1e6, "the same command with a larger budg")],
)
def test_a_run_that_its_budget_stopped_says_how_far_it_is(
    reason: str, limit: float, more: str
) -> None:
    told = describe_stop(reason, limit, 3, 9)
    assert told.startswith(f"stopped by --run-{reason} {limit:.15g}: 3 of 9 questions have their t")
    assert f"; {more}" in told and ("larger" in told) is (reason != "seconds")


def test_a_kept_trace_costs_its_share_of_all_searches() -> None:
    whole = "1000 tokens written, 4000 prompt tokens, 8 requests, 3 crops shown, 700 image tokens"
    assert describe_cost(SPENT, 4, 2.0, 10.0) == (
        "a kept trace cost 250 tokens written, 1000 prompt tokens, 1.5 s of requests, 0.0045 in "
        f"money (all searches: {whole}, 0.018 in money)"
    )
    assert describe_cost(SPENT, 0, None, 1.0) == f"the searches cost {whole}; no trace was kept"
    plain = describe_cost({**SPENT, "crops": 0}, 1, 1.0, None, estimated=1)
    assert plain == (
        "a kept trace cost 1000 tokens written, 4000 prompt tokens, 6 s of requests (all searches: "
        "1000 tokens written, 4000 prompt tokens, 8 requests; tokens are estimated, as the server "
        "does not count them)"
    )


def test_the_commonest_reasons_are_named_and_the_rest_counted() -> None:
    reasons = ["a"] * 4 + ["b"] * 3 + ["c", "c", "d", "e"]
    assert describe_reasons(reasons) == "a (4), b (3), c (2), 2 other reasons (2)"
    assert describe_reasons(reasons[:9]) == "a (4), b (3), c (2)"
    assert describe_reasons(["at 0.1: gone", "at the root: gone", "gone"]) == "gone (3)"
    assert describe_reasons(["", "x  y\nz"]) == "no reason given (1), x y z (1)"
    assert describe_reasons(["x" * 200]) == f"{'x' * 200} (1)"
    assert describe_reasons(["x" * 201]) == f"{'x' * 200}... (1)"


@pytest.mark.parametrize(
    ("kind", "example", "space", "help_"),
    [
        ("unread_shares", "", "qwen3-vl", "--space normalized-1 reads them"),
        ("unread_shares", "", "qwen3-vl+xml", "--space normalized-1+xml reads them"),
        (
            "unread_xml",
            "<point>",
            "qwen3-vl",
            "--space qwen3-vl+xml reads them, of Molmo --space m",
        ),
        ("unread_json", "{", None, "--space SPACE+json reads them"),
        ("unread_box", "[", "qwen3-vl+boxes", "no setting reads this; the prompt (--prompt) can "),
        ("unread_xml", "<LOC_1>", "qwen3-vl", "no setting reads this; the prompt (--prompt) can "),
        ("unread_image", "", "qwen3-vl", "the prompt (--prompt) can ask for `(x, y) in image 2`"),
        ("unread_number", "", "qwen3-vl", "it may be a number; the prompt"),
    ],
)
def test_what_is_unread_is_told_with_what_reads_it(
    kind: str, example: str, space: str | None, help_: str
) -> None:
    assert help_ in _help(kind, example, space)


# ---- coordinates of a server --------------------------------------------------------------------


def test_a_servers_coordinates_are_given_or_in_its_models_name_and_never_guessed() -> None:
    for name, space in (
        ("Qwen/Qwen3-VL-8B", CoordinateSpace.qwen3_vl()),
        ("my qwen2.5_vl", space_by_name("qwen2.5-vl")),
        ("QWEN2VL", space_by_name("qwen2-vl")),
    ):  # fmt: skip
        assert server_space(None, name) == space
    assert server_space("original", "Qwen/Qwen3-VL-8B") == CoordinateSpace.original()
    for model in (None, "llava", "qwen-vl"):
        with pytest.raises(Problem, match=r"^space: a server does not name the coordinates of its"):
            server_space(None, model)
    with pytest.raises(Problem, match=r"^space: "):
        space_by_name("pixels")


def test_a_served_checkpoint_says_with_which_options_it_is_asked(tmp_path: Path) -> None:
    assert space_options("qwen3-vl-8b", None, None, None) == "--model qwen3-vl-8b"
    assert space_options("qwen3-vl-8b", None, 9, 16) == (
        "--model qwen3-vl-8b --min-pixels 9 --max-pixels 16"
    )
    assert space_options("mine", None, None, 16).startswith("--space qwen2-vl|")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    assert space_options("mine", tmp_path, None, None).startswith("--space qwen3-vl")
    assert (
        space_options("mine", tmp_path, 9, 16) == "--space qwen3-vl --min-pixels 9 --max-pixels 16"
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt"}))
    with pytest.raises(Problem, match="give --space"):
        checkpoint_space(tmp_path)


# ---- how a search is named ----------------------------------------------------------------------


def config_of(**given: object) -> SearchConfig:
    settings = BuildSettings.checked(task="sat2", teacher="nano-base", **given)
    return search_config(settings, resolve(settings))


def test_a_search_is_decided_by_what_its_strategy_uses() -> None:
    given = {"simulations": 5, "children": 2, "rollouts": 4, "exploration": 1.5, "wave": 2,
             "temperature": 0.7, "top_p": 0.9, "max_depth": 6, "tree_tokens": 99}  # fmt: skip
    of_trees = {"widening": 0.5, "distinct": True}
    tree = config_of(**given, **of_trees)
    assert {name: getattr(tree, name) for name in given if name != "tree_tokens"} == {
        name: value for name, value in given.items() if name != "tree_tokens"
    }
    assert (tree.widening, tree.distinct) == (0.5, True)
    assert tree.budget == Budget(99, None, None)
    plain = SearchConfig(tree.space)
    chains = config_of(**given, strategy="best-of-n")
    only_of_trees = "simulations", "children", "rollouts", "exploration"
    for name in only_of_trees:
        assert getattr(chains, name) == getattr(plain, name)
    assert (chains.samples, chains.temperature) == (MOST_SAMPLES, 0.7)
    assert MOST_SAMPLES == 1024, "more than a budget reaches"
    assert config_of(strategy="linear").samples == plain.samples == 16
    assert config_of(strategy="linear", samples=3, tree_tokens=9).samples == 3
    with pytest.raises(Problem, match=r"^prompt: "):
        config_of(prompt="nowhere")


async def test_trees_prefetch_in_the_slots_that_nobody_needs() -> None:
    slots = TreeSlots(6)
    assert slots.prefetch() == 5
    for running, each in ((1, 5), (2, 2), (3, 1), (4, 0)):
        await slots.acquire()
        assert slots.prefetch() == each, running
    slots.release()
    assert slots.prefetch() == 1
