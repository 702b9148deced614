"""What the stages of a cycle do, each a function of the cycle and its settings.

    outcome = await STAGE_WORK["publish"](cycle, settings, tools)

Each returns what is stored as its outcome, or raises `Paused` where the cycle can't go on now and
should later. A stage that was killed in the middle is simply run again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial

import pyarrow.parquet as pq

from curation.filters.base import Filter
from curation.filters.config import DEFAULT_FILTERS
from flows.progress import TerminalProgress
from flows.retrain_settings import RetrainSettings
from flows.settings import BuildSettings, EvaluateSettings, GrpoSettings, SftSettings
from flows.settings_base import FieldProblem
from flows.stages.build import build
from flows.stages.corpus.passes import filter_corpus
from flows.stages.curate import curate_in_batches, read_filters, refilter
from flows.stages.evaluate import evaluate
from flows.stages.forecast import Forecast, forecast_build
from flows.stages.retrain.collapse import check_collapse
from flows.stages.retrain.cycle import Cycle
from flows.stages.retrain.gate import decide_gate, evaluate_both
from flows.stages.retrain.new_data import (
    new_traces,
    questions_without_tree,
    uncounted_trees,
    unrevoked_statement,
)
from flows.stages.retrain.tools import Paused, Tools, Work
from flows.teachers.trained import is_served
from mcts.data import ResponseStyle
from training.evaluation.report import EvaluationReport
from training.recipes import GrpoRecipe, load_recipe
from warehouse.query.read_back import read_usable_prefixes
from warehouse.query.run_query import connect_trusted, table_versions
from warehouse.query.sql_guard import all_quoted
from warehouse.registry import champion_id
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import record_run
from warehouse.tables.schema import Row
from warehouse.versions.selection import NothingChosen
from warehouse.versions.versions import ROWS, open_version, publish, resolve


async def build_new(cycle: Cycle, settings: RetrainSettings, tools: Tools) -> Row:
    """Search the questions that nobody has searched; curate their traces."""
    questions = questions_without_tree(cycle.warehouse, cycle.task)
    filters = read_filters(settings.filters)
    await curate_left(cycle, filters, corpus=not questions)  # a build ends with that pass itself
    total = await asyncio.to_thread(_searched_before, cycle)
    if not questions:
        return {**total, "traces": len(new_traces(cycle.warehouse, cycle.task))}
    searches = [
        await _forecast(part, asked, tools) for part, asked in shared_out(settings, questions)
    ]
    for chosen, asked, forecast in searches:
        summary = await build(chosen, progress=TerminalProgress(), question_ids=asked)
        if stopped := summary.extra.get("stopped"):
            raise Paused(stopped.partition(";")[0])
        found = {"forecast": forecast, "trees": summary.trees, "kept": summary.kept,
                 "requests": summary.requests, **summary.extra}  # fmt: skip
        for name, value in found.items():
            more = f"\n{value}" if isinstance(value, str) else value
            total[name] = total[name] + more if name in total else value
    return {**total, "traces": len(new_traces(cycle.warehouse, cycle.task))}


def _searched_before(cycle: Cycle) -> Row:
    """Count what this cycle had searched when it was stopped; nothing where it just began."""
    began = (cycle.outcome("look") or {}).get("at")
    with connect_trusted(cycle.warehouse, ["trees", "kept_traces"]) as con:
        found = con.execute(
            "WITH mine AS (SELECT tree_id FROM trees WHERE task = $1 "
            "AND created_at >= to_timestamp($2)) SELECT (SELECT count(*) FROM mine), "
            "(SELECT count(*) FROM kept_traces SEMI JOIN mine USING (tree_id))",
            [cycle.task, began],
        ).fetchall()
    return dict(zip(("trees", "kept"), found[0], strict=True))


def shared_out(
    settings: RetrainSettings, questions: Sequence[str]
) -> list[tuple[RetrainSettings, list[str]]]:
    """Share questions out between the teacher and the one beside it, if any, with the budgets.

    By hash, so that a cycle that was killed shares them out alike.
    """
    if not settings.beside:
        return [(settings, list(questions))]
    limit = settings.beside_share * 2**32
    mine: list[str] = []
    others: list[str] = []
    for question in questions:
        (others if int(question[-8:], 16) < limit else mine).append(question)
    parts = []
    for teacher, asked in ((settings.teacher, mine), (settings.beside, others)):
        if asked:
            share = len(asked) / len(questions)
            tokens = settings.run_tokens and math.ceil(settings.run_tokens * share)
            part = {
                "teacher": teacher, "run_tokens": tokens,
                "space": settings.space if is_served(teacher or "") else None,
                "run_money": settings.run_money and settings.run_money * share,
                "run_seconds": settings.run_seconds and settings.run_seconds * share,
            }  # fmt: skip
            parts.append((settings.model_copy(update=part), asked))
    return parts


async def _forecast(
    settings: RetrainSettings, asked: list[str], tools: Tools
) -> tuple[BuildSettings, list[str], str]:
    """Predict what the searches of these questions cost; bound what they may write."""
    given = {
        "teacher": settings.teacher, "space": settings.space, "filters": settings.filters,
    }  # fmt: skip
    chosen = BuildSettings.checked(
        task=settings.task, simulations=settings.simulations, home=settings.home,
        run_seconds=settings.run_seconds, price_in=settings.price_in, price_out=settings.price_out,
        **{name: value for name, value in given.items() if value},
    )  # fmt: skip
    forecast = await forecast_build(chosen, question_ids=asked)
    tools.report(forecast.text())
    tokens = affordable(settings, forecast)
    if tokens and forecast.completion_tokens.middle > tokens:
        tools.report(f"that is more than {tokens} tokens: it takes several runs")
    return chosen.model_copy(update={"run_tokens": tokens}), asked, forecast.text()


async def curate_left(
    cycle: Cycle, filters: Sequence[Filter] = DEFAULT_FILTERS, *, corpus: bool = True
) -> None:
    """Curate what a build that was killed left: trees without traces, traces without verdicts.

    Their questions are searched, so that no build of new questions comes back to them.

    Args:
        corpus: whether the filters that read all of a task's traces run as well.
    """
    warehouse = cycle.warehouse
    record_run(warehouse, cycle.name, "curate", task=cycle.task)
    left = await asyncio.to_thread(uncounted_trees, warehouse, cycle.task)
    await curate_in_batches(warehouse, cycle.name, left, filters)
    if corpus:
        await refilter(warehouse, cycle.name, cycle.task, filters)
        await filter_corpus(warehouse, cycle.name, cycle.task, filters)


def affordable(settings: RetrainSettings, forecast: Forecast) -> int | None:
    """Return how many tokens the searches may write; None without a bound.

    Prompt tokens cost too: money is turned into written tokens by what the pilot had of both.
    """
    written = forecast.completion_tokens.middle
    if settings.run_money is None or not written:
        return settings.run_tokens
    prompt = forecast.prompt_tokens.middle
    each = ((settings.price_in or 0) * prompt / written + (settings.price_out or 0)) / 1e6
    tokens = max(1, round(settings.run_money / each))
    return min(tokens, settings.run_tokens or tokens)


async def check_champion(cycle: Cycle, settings: RetrainSettings, tools: Tools) -> Row:
    """Check that a champion which searched for its own training data did not narrow."""
    return await asyncio.to_thread(check_collapse, cycle)


async def publish_version(cycle: Cycle, settings: RetrainSettings, tools: Tools) -> Row:
    """Cut the dataset that this cycle trains on."""
    tables = await asyncio.to_thread(table_versions, cycle.warehouse)
    try:
        version = await asyncio.to_thread(
            publish, cycle.warehouse, f"{cycle.task}-cycle", _statement(cycle, settings)
        )
    except NothingChosen:
        reason = "none of its traces may be trained on any more: they were revoked, or are gone"
        return {"ends": {"outcome": "too_few", "reason": reason}}
    return {
        "dataset": version.ref, "traces": version.n_rows, "hash": version.content_hash,
        "tables": tables,
    }  # fmt: skip


def _statement(cycle: Cycle, settings: RetrainSettings) -> str:
    """Return the SQL that chooses the traces: all, or new ones and a share of the old."""
    chosen = ""
    if settings.start == "champion" and champion_id(cycle.warehouse, cycle.task):
        old = _trained_questions(cycle.warehouse, cycle.task)
        shown = [q for q in old if int(q[:8], 16) < settings.replay * 2**32]
        left_out = sorted(set(old) - set(shown))
        if left_out:
            chosen = f"AND question_id NOT IN ({all_quoted(left_out)}) "
    return (
        f"{unrevoked_statement(cycle.task)} {chosen}QUALIFY row_number() OVER "
        f"(PARTITION BY question_id ORDER BY md5(trace_id), trace_id) <= {settings.per_question}"
    )


def _trained_questions(warehouse: Warehouse, task: str) -> list[str]:
    """Return the questions whose traces were there before what is new."""
    new = set(new_traces(warehouse, task))
    with connect_trusted(warehouse, ["traces", "questions"]) as con:
        rows = con.sql(
            "SELECT trace_id, question_id FROM traces JOIN questions USING (question_id) "
            "WHERE questions.task = $1 AND split = 'train'",
            params=[task],
        ).fetchall()
    fresh = {question for trace, question in rows if trace in new}
    return sorted({question for _, question in rows} - fresh)


async def train_sft(cycle: Cycle, settings: RetrainSettings, tools: Tools) -> Row:
    """Teach the student the cycle's dataset."""
    if not settings.sft_recipe:
        return {"model": _first_model(cycle, settings)}
    chosen = SftSettings.checked(
        recipe=settings.sft_recipe, dataset=cycle.dataset, name=f"{cycle.name}-sft",
        model=_first_model(cycle, settings), override=settings.sft_override, home=settings.home,
    )  # fmt: skip
    return {"model": await tools.train(chosen)}


async def measure_student(cycle: Cycle, settings: RetrainSettings, tools: Tools) -> Row:
    """Measure how hard the dataset's questions are for the student that GRPO goes on from.

    A recipe that takes the student's own pass rates would else find none: every cycle has another
    student.
    """
    if not settings.grpo_recipe or cycle.outcome("grpo") is not None:  # older cycles passed it over
        return {}
    recipe = load_recipe(settings.grpo_recipe, settings.grpo_override)
    if not isinstance(recipe, GrpoRecipe) or recipe.pass_rates != "student":
        return {}
    asked = {
        "model": cycle.required("sft")["model"] or recipe.model, "benchmark": cycle.task,
        "pass_at": recipe.group, "temperature": recipe.temperature, "top_p": recipe.top_p,
        "response_style": recipe.response_style, "min_thoughts": recipe.min_thoughts,
        "home": settings.home,
    }  # fmt: skip
    wanted = await asyncio.to_thread(_questions_of, cycle)
    measure = partial(evaluate, report=tools.report, beside_no_zoom=False, question_ids=wanted)
    report = (await measure(EvaluateSettings.checked(**asked))).report
    found: Row = {
        "model": asked["model"], "evaluation_id": report.evaluation_id,
        "questions": len(report.questions), "accuracy": report.accuracy and report.accuracy.value,
        "tokens": _answer_tokens(report, recipe.group),
    }  # fmt: skip
    if not recipe.prefixes:
        return found
    try:
        behind = await measure(EvaluateSettings.checked(**asked, prefixes=2 * recipe.prefixes))
        found["tokens"] += _answer_tokens(behind.report, recipe.group)
    except FieldProblem as none:
        tools.report(str(none))
    usable = await asyncio.to_thread(
        read_usable_prefixes, cycle.warehouse, sorted(wanted), report.model_id,
        report.settings["prompt"], recipe.response_style is ResponseStyle.ZOOM,
    )  # fmt: skip
    return {**found, "prefixes": sum(map(len, usable.values()))}


def _answer_tokens(report: EvaluationReport, samples: int) -> int:
    """Return how many tokens were written for `samples` answers to each question."""
    return round(report.figures["all"]["tokens"].value * samples * len(report.questions))


def _questions_of(cycle: Cycle) -> frozenset[str]:
    """Return the ids of the questions of the cycle's dataset."""
    version = resolve(cycle.warehouse, cycle.dataset)
    with open_version(cycle.warehouse, version, ROWS) as folder:
        column = pq.read_table(folder / "rows.parquet", columns=["question_id"])["question_id"]
    return frozenset(column.to_pylist())


async def train_grpo(cycle: Cycle, settings: RetrainSettings, tools: Tools) -> Row:
    """Reward the student on the questions of the cycle's dataset."""
    before = cycle.required("sft")["model"]
    if not settings.grpo_recipe:
        return {"model": before}
    measured = cycle.outcome("measure") or {}
    # A student that is right behind all of them or none has nothing to learn there.
    without = ("prefixes=0",) if measured.get("prefixes") == 0 else ()
    chosen = GrpoSettings.checked(
        recipe=settings.grpo_recipe, dataset=cycle.dataset, name=f"{cycle.name}-grpo",
        model=before, override=(*settings.grpo_override, *without), home=settings.home,
    )  # fmt: skip
    return {"model": await tools.train(chosen)}


def _first_model(cycle: Cycle, settings: RetrainSettings) -> str | None:
    """Return the model that a training starts from; None for the recipe's own."""
    if settings.start == "champion":
        return champion_id(cycle.warehouse, cycle.task)
    return None


STAGE_WORK: dict[str, Work] = {
    "build": build_new,
    "collapse": check_champion,
    "publish": publish_version,
    "sft": train_sft,
    "measure": measure_student,
    "grpo": train_grpo,
    "evaluate": evaluate_both,
    "gate": decide_gate,
}
"""What is done in each stage between `look` and `end`."""
