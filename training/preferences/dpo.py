"""Direct preference optimization of a student on the sibling pairs of a version's trees.

    row = train_dpo(warehouse, load_recipe("qwen3-vl-4b-dpo"), "sat2-sft@v1", model="my-sft")
    vigorl train dpo qwen3-vl-4b-dpo --dataset sat2-sft@v1 --model my-sft

Which DPO this is: TRL's `DPOTrainer` (Rafailov et al., arXiv 2305.18290). Of two ways on from one
place of a tree the one of the higher value is made likelier than the other, by the log-ratio to a
reference, which is the student that the training starts from. Pairs of branches of one tree gave
FastMCTS a point above SFT on the same trees (arXiv 2502.11476).

The same call again continues after a kill, or returns the model that is there.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from mcts.data import content_id
from training.chat_templates import ChatTemplate
from training.examples import Examples
from training.preferences.pairs import pair_dataset, pair_examples
from training.preflight import check_dpo
from training.recipes import DpoRecipe
from training.run_training import Checks, open_start, run_training
from training.runs import Plan, open_run
from training.sft import as_dialogues
from training.trainers import TrainingReporter, dpo_trainer, training_template
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row
from warehouse.versions.versions import open_version, resolve


def train_dpo(
    warehouse: Warehouse,
    recipe: DpoRecipe,
    dataset: str,
    *,
    model: str | None = None,
    name: str | None = None,
    only_check: bool = False,
    reporter: TrainingReporter | None = None,
    recorded: Row | None = None,
) -> Row | None:
    """Train a student; return the finished model's row of `models`, or None after checks alone.

    Args:
        dataset: name@vN whose traces' trees have the pairs, or name for the newest.
        model: the student to start from, instead of the recipe's; usually one after SFT.
        name: the new model's name; by default the recipe's name and a hash.
        only_check: check data and model, as before any run, and train nothing.
        recorded: what `runs.params` keeps beside the plan.

    Raises:
        TrainingError, WarehouseError: one sentence that says what to put right.
    """
    reporter = reporter or TrainingReporter()
    version = resolve(warehouse, dataset)
    with ExitStack() as stack:
        student = stack.enter_context(open_start(warehouse, recipe, model))
        folder = stack.enter_context(open_version(warehouse, version))
        student, recipe = as_dialogues(student, recipe, folder)
        sides = pair_examples(warehouse, folder, version.ref, student, recipe)
        plan = Plan(
            "dpo", recipe.settings(), version.ref, sides_hash(sides), student.model_id, name=name
        )
        run = stack.enter_context(open_run(warehouse, plan, recorded))
        if run.finished is not None:
            reporter.message(f"{run.finished['name']} is trained already")
            return run.finished
        reporter.message(
            f"{plan.model_name}: {len(sides.rows) // 2} pairs of the trees of {version.ref}"
            f"{sides.left_out_text}"
        )

        def make(loaded: Any, processor: Any) -> Any:
            template = ChatTemplate.of(processor, training_template(processor))
            pairs = pair_dataset(sides, template)
            return dpo_trainer(run, recipe, loaded, processor, pairs, reporter)

        checks = Checks(recipe.max_tokens, check_dpo, only_check)
        return run_training(run, student, sides, make, checks, reporter)


def sides_hash(sides: Examples) -> str:
    """Return a content hash of the pairs."""
    return content_id([(row["question_id"], row["messages"]) for row in sides.rows])
