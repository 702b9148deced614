"""What trees are worth to GRPO on the embedded model, at equal tokens, steps and questions.

    make claim-trees                    # hours; interrupted, the same command goes on
    make claim-trees ARGS="--seeds 1 --steps 10"
    make claim-trees ARGS="--zoom --seeds 1"    # of the model that zooms: forks behind crops
    make claim-trees ARGS=--quick       # one seed and two steps: a check, no proof
    make claim-trees ARGS=--report      # only the tables of what is finished

Both arms are `nano-grpo` on the embedded sample's training questions, from the same model; they
differ in `sampling` alone, and a tree may write what its group's chains would have. With `--zoom`
they are `nano-zoom-grpo` on 160 questions about large pictures of signs, tested on 400 others.
Stages run as processes, one a core, each after those it needs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from flows.settings import EvaluateSettings, GrpoSettings
from mcts.data import content_id
from training.evaluation.report import cell
from training.recipes import GrpoRecipe, load_recipe
from training.runs import read_metrics
from vigorl_nano.claims.parts import EVERY_BAND, NO_TRACKERS, evaluation_outcome, train_model
from vigorl_nano.claims.scores import ArmScores, interval, save_report, scores_of, time_spent
from vigorl_nano.claims.stages import (
    Experiment,
    Stage,
    Work,
    add_options,
    open_experiment,
    run_command,
    seeds_of,
)
from vigorl_nano.claims.zoom.work import NO_ALARMS, draw_splits
from vigorl_nano.evaluate import table
from warehouse.sources.importing import import_questions, import_sample
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row

ARMS = {"chains": "GRPO on chains", "tree": "GRPO on trees"}
"""Titles by the value of `sampling`."""
BASE = "base"


@dataclass(frozen=True, slots=True)
class TreeClaimSize:
    """How large the experiment is."""

    seeds: tuple[int, ...]
    """Of trainings; either arm has a model for each."""
    steps: int
    """Optimizer steps of a training."""
    test: int | None = None
    """Test questions; all 240 when left out."""
    compared: int = 32
    """Training questions that are sampled in both ways before a training."""
    recipe: str = "nano-grpo"
    start: str = "nano-reader"
    """The model that both arms start from."""
    task: str = "sat2"
    draw: tuple[tuple[int, int], ...] = ()
    """Of questions that are drawn anew for training and test: seed, and how many; when left out,
    the embedded sample's are asked."""

    @property
    def name(self) -> str:
        """A short unique name: `trees-1a2b3c4d`."""
        return f"trees-{content_id(size_identity(self))[:8]}"


FULL = TreeClaimSize((0, 1, 2), steps=20)
QUICK = TreeClaimSize((0,), steps=2, test=24, compared=4)


def zooming(size: TreeClaimSize) -> TreeClaimSize:
    """Return the experiment with the model that zooms, on questions that one look can't answer."""
    draw = ((83_001, 160), (83_003, size.test or 400))
    return replace(size, recipe="nano-zoom-grpo", start="nano-zoom", task="vstar", draw=draw)


def size_identity(size: TreeClaimSize) -> Row:
    """Return what distinguishes experiments, as JSON holds it: all but the seeds."""
    fields = asdict(size)
    del fields["seeds"]
    fields["draw"] = [[*pair] for pair in size.draw]
    if not size.draw:  # as it was before others than the sample's questions could be asked
        del fields["task"], fields["draw"]
    return fields


def stages(size: TreeClaimSize) -> list[Stage]:
    """List every stage, each behind those it needs; one seed's before the next."""
    found = [Stage("questions", ()), Stage(f"test/{BASE}", ("questions",))]
    for seed in size.seeds:
        for arm in ARMS:
            found.append(Stage(f"train/{arm}@{seed}", ("questions",)))
            found.append(Stage(f"test/{arm}@{seed}", (f"train/{arm}@{seed}",)))
    return found


def take_questions(experiment: Experiment, stage: Stage) -> Row:
    """Import the embedded sample, or questions drawn anew; the splits share no image."""
    size, warehouse = experiment.size, Warehouse.at(experiment.home)
    if not size.draw:
        report = import_sample(warehouse, size.task)
        assert report is not None
        return {"questions": report.added + report.already_there}
    found = 0
    for split, path in draw_splits(experiment, size.draw).items():
        report = import_questions(warehouse, size.task, path, split=split)
        found += report.added + report.already_there
    return {"questions": found}


def train_arm(experiment: Experiment, stage: Stage) -> Row:
    """Train an arm; keep what its groups were like, as means of all steps."""
    size: TreeClaimSize = experiment.size
    name = experiment.model_name(stage.arm, stage.seed)
    more = [f"tree.compared={size.compared}"] * (stage.arm == "tree")
    more += NO_ALARMS if size.draw else ()
    settings = GrpoSettings.checked(
        recipe=size.recipe, task=size.task, split="train", name=name, model=size.start,
        home=experiment.home,
        override=(
            f"steps={size.steps}", f"seed={stage.seed}", f"bands={EVERY_BAND}", NO_TRACKERS,
            f"sampling={stage.arm}", *more,
        ),
    )  # fmt: skip
    outcome = train_model(settings, size.steps)
    (folder,) = (Path(experiment.home) / "training").glob(f"{name}-*")
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]
    recipe = load_recipe(size.recipe)
    assert isinstance(recipe, GrpoRecipe)
    return {**outcome, **sampled(lines, recipe.questions * recipe.group), **compared(lines)}


def sampled(lines: Sequence[Row], chains: int) -> Row:
    """Return what a step sampled on average, from the lines of a training's metrics.

    Args:
        chains: that a step samples where it grows no trees.

    The share of dead groups is `groups/dead_first`: TRL's own figure, `frac_reward_zero_std`,
    misses groups whose equal rewards differ by rounding.
    """
    dead = [line["groups/dead_first"] for line in lines if "groups/dead_first" in line]
    tokens = [line.get("tree/tokens", line["completions/mean_length"] * chains) for line in lines]
    whole = [line.get("tree/leaves", 0) * line.get("tree/trees", 0) or chains for line in lines]
    return {
        "tokens": fmean(tokens),
        "completions": fmean(whole),
        "dead": fmean(dead) if dead else None,
        "reward": fmean(line["reward"] for line in lines),
        "shared": fmean(line.get("tree/shared", 0.0) for line in lines),
    }


def compared(lines: Sequence[Row]) -> Row:
    """Return the equal-token comparison before a training's first step; empty without one."""
    names = [name for line in lines for name in line if name.startswith("comparison/")]
    return {name: lines[0][name] for name in names}


def evaluate_test(experiment: Experiment, stage: Stage) -> Row:
    """Evaluate a model on the test split, greedily."""
    size: TreeClaimSize = experiment.size
    model = size.start
    if stage.arm != BASE:
        model = experiment.required_outcome(f"train/{stage.name.partition('/')[2]}")["model"]
    settings = EvaluateSettings.checked(
        model=model, benchmark=size.task, split="test", temperature=0.0, samples=1, limit=size.test,
        seed=stage.seed, home=experiment.home,
    )  # fmt: skip
    return {"evaluations": {"greedy": evaluation_outcome(settings)}}


STAGES: dict[str, Work] = {"questions": take_questions, "train": train_arm, "test": evaluate_test}


def write_report(experiment: Experiment) -> None:
    """Print the tables of what is finished, and write them to `claim.md` and `claim.json`."""
    size: TreeClaimSize = experiment.size
    done = [s for s in size.seeds if all(experiment.outcome(f"test/{a}@{s}") for a in ARMS)]
    found = {}
    if done and experiment.outcome(f"test/{BASE}"):
        names = {BASE: [f"test/{BASE}"] * len(done)}
        names |= {arm: [f"test/{arm}@{seed}" for seed in done] for arm in ARMS}
        found = {
            arm: [experiment.required_outcome(s)["evaluations"]["greedy"] for s in some]
            for arm, some in names.items()
        }
    scores = scores_of(experiment, found)
    lines, kept = ([], {}) if scores is None else tables(experiment, scores, done)
    save_report(experiment, [*lines, "", time_spent(experiment, stages(size))], kept)


def tables(
    experiment: Experiment, scores: ArmScores, seeds: Sequence[int]
) -> tuple[list[str], dict[str, Any]]:
    """Return the tables' lines, and the figures in them."""
    trained = {
        arm: [experiment.required_outcome(f"train/{arm}@{seed}") for seed in seeds] for arm in ARMS
    }
    rows, kept = [], {}
    for arm, each in scores.scores.items():
        kept[arm] = asdict(right := interval(each, scores.scenes))
        some = trained.get(arm, [])
        means = {n: fmean(o[n] for o in some) for n in ("tokens", "completions") if some}
        dead = [o["dead"] for o in some if o["dead"] is not None]
        rows.append([
            ARMS.get(arm, f"{experiment.size.start}, untrained"), cell(right),
            ", ".join(f"{100 * value:.1f}" for value in each.mean(axis=1)) if some else "-",
            f"{means['tokens']:.0f}" if some else "-",
            f"{means['completions']:.0f}" if some else "-",
            f"{fmean(dead):.1%}" if dead else "-",
        ])  # fmt: skip
    gap = interval(scores.scores["tree"] - scores.scores["chains"], scores.scenes)
    kept["trees minus chains"] = asdict(gap)
    first = trained["tree"][0]
    heads = ["trained as", "right", "by seed", "tokens a step", "completions a step", "dead groups"]
    lines = [
        f"{len(scores.questions)} held-out questions, {experiment.size.steps} steps, seeds "
        f"{list(seeds)}, in %, greedy:", "", *table(heads, rows), "",
        f"Trees minus chains: {cell(gap, '+')} points.",
    ]  # fmt: skip
    if "comparison/questions" in first:
        lines += ["", *comparison_table(trained["tree"])]
    return lines, kept


def comparison_table(outcomes: Sequence[Row]) -> list[str]:
    """Render what both ways gave for the same questions before the first steps, mean of seeds."""
    names = ["tokens", "completions", "live", "distinct", "right", "solved"]
    rows = [
        [way, *(f"{fmean(o[f'comparison/{way}/{name}'] for o in outcomes):.2f}" for name in names)]
        for way in ("chains", "trees")
    ]
    return table(["before the first step, a question", *names], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make claim-trees", description=(__doc__ or "").partition("\n")[0]
    )
    add_options(parser)
    parser.add_argument("--folder", type=Path, help="where all of it goes; below runs/")
    parser.add_argument("--steps", type=int, help="optimizer steps of a training")
    parser.add_argument("--zoom", action="store_true", help="with the model that zooms")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    seeds, steps = seeds_of(parser, options, size.seeds), options.steps or size.steps
    size = replace(size, seeds=seeds, steps=steps)
    size = zooming(size) if options.zoom else size
    kind = ("-zoom" if options.zoom else "") + ("-quick" if options.quick else "")
    folder = options.folder or Path("runs") / f"claim-trees{kind}-{steps}-steps"
    experiment = open_experiment(folder, size, size_identity(size))
    again = ["vigorl_nano.claims.trees", "--steps", str(steps), *["--zoom"] * options.zoom]
    run_command(parser, options, experiment, stages(size), STAGES, again)
    write_report(experiment)


if __name__ == "__main__":
    main()
