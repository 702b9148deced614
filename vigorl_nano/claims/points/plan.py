"""What the claim's experiment does, as data: its arms, its sizes, and the stages in their order.

    for stage in stages(FULL): stage.name, stage.after, stage.seconds
    ARMS["vigorl"].title             # its row in the table

An arm is a way to train the embedded student; all arms see the same questions, and every arm's
optimizer steps add up to `warm_steps + rl_steps`. A stage is one process; its outcome is a small
JSON file, and a stage that has one is not run again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mcts.data import ResponseStyle, content_id
from vigorl_nano.claims.scores import Expectation
from vigorl_nano.claims.stages import Stage

GROUNDED = ResponseStyle.GROUNDED
UNGROUNDED = ResponseStyle.UNGROUNDED
ANSWER_ONLY = ResponseStyle.ANSWER_ONLY

PLACES = ("above_below", "camera_turn", "goal_aim", "left_right")
"""Kinds of questions whose answer depends on where things are in the image."""
FAMILIES = tuple(sorted((*PLACES, "closer", "colour", "depth_order", "exists", "front_behind")))


@dataclass(frozen=True, slots=True)
class Size:
    """How large the experiment is. Two sizes never share a stage; see `size_identity`."""

    questions: int
    """Training questions, of all families alike; a multiple of their number."""
    validation: int
    """Questions that settings may be tuned on, with the models of the first seed."""
    test: int
    """Questions asked only when every model is trained."""
    seeds: tuple[int, ...]
    """Of searches and trainings; an arm has a model for each."""
    simulations: int
    """Simulations a tree."""
    per_question: int
    """Most traces of a question in a training set."""
    most_steps: int
    """Most steps of a trace there. A short training on long ones makes a student ramble."""
    warm_steps: int
    """Optimizer steps of SFT before GRPO."""
    rl_steps: int
    """Optimizer steps of GRPO after SFT."""
    samples: int
    """Answers to each test question at `TEMPERATURE`, beside the greedy one."""
    draw_seeds: tuple[int, ...] = (70_001, 70_002, 70_004)
    """Of the questions of each split. 70,003 drew the test questions of an earlier plan, whose
    results shaped this one, so it is tested on others."""
    start: str = "nano-reader"
    """The model that every arm starts from."""
    families: tuple[str, ...] = FAMILIES
    """Kinds of questions: those that the teacher answers better than by chance. The others would
    add the same tosses of a coin to every arm."""

    @property
    def name(self) -> str:
        """A short unique name: `claim-1a2b3c4d`."""
        return f"claim-{content_id(size_identity(self))[:8]}"

    @property
    def all_steps(self) -> int:
        """Optimizer steps of every arm."""
        return self.warm_steps + self.rl_steps


FULL = Size(180, 180, 1008, (0, 1, 2), 8, 10, 6, warm_steps=50, rl_steps=40, samples=4)
QUICK = Size(54, 27, 243, (0,), 4, 8, 6, warm_steps=12, rl_steps=6, samples=1)
TEMPERATURE = 0.5
"""Of sampled test answers, as in the paper's tables."""


RATES = {GROUNDED: 1.0e-3, UNGROUNDED: 1.0e-3, ANSWER_ONLY: 3.0e-4}
"""Learning rates of SFT, chosen on the validation questions. An answer is a few tokens: at the rate
of traces a student unlearns what it knew."""
SUFFIXES = {GROUNDED: "", UNGROUNDED: "-ungrounded", ANSWER_ONLY: "-answers"}
"""The end of a recipe's name for each response style."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to a student, or a model as it is."""

    title: str
    """A row's name in the table."""
    response_style: ResponseStyle
    """How its answers are written down."""
    data: str | None = None
    """The source of its SFT traces: `mcts`, or `chains` sampled without a search."""
    rl: bool = False
    """Whether its training ends with GRPO."""

    @property
    def recipes(self) -> tuple[str, ...]:
        """The recipes it goes through, in order."""
        suffix = SUFFIXES[self.response_style]
        sft = (f"nano-sft{suffix}",) if self.data else ()
        return (*sft, f"nano-grpo{suffix}") if self.rl else sft


ARMS: dict[str, Arm] = {
    "base-answers": Arm("base, answers alone", ANSWER_ONLY),
    "base-ungrounded": Arm("base, thoughts without points", UNGROUNDED),
    "base": Arm("base, grounded thoughts", GROUNDED),
    "sft-answers": Arm("SFT on answers", ANSWER_ONLY, "mcts"),
    "sft-chains": Arm("SFT on chains without a search", GROUNDED, "chains"),
    "grpo": Arm("GRPO without grounding", UNGROUNDED, rl=True),
    "sft-mcts": Arm("MCTS-SFT", GROUNDED, "mcts"),
    "ungrounded": Arm("ViGoRL without grounding", UNGROUNDED, "mcts", rl=True),
    "vigorl": Arm("ViGoRL: MCTS-SFT + GRPO", GROUNDED, "mcts", rl=True),
}
"""Every row of the table by its name in stages and models."""

TRAINED = tuple(name for name, arm in ARMS.items() if arm.recipes)
SPLITS = ("train", "validation", "test")
CONTROLLED = ("base", "vigorl")
"""Arms that are also evaluated with blank images."""

EXPECTED = (
    Expectation("vigorl", "grpo", 0.05),
    Expectation("vigorl", "sft-answers"),
    Expectation("vigorl", "sft-mcts"),
)
"""The arms ViGoRL should beat."""


def stages(size: Size) -> list[Stage]:
    """List every stage, each behind those it needs; one seed's before the next.

    The test split is used only when every model is trained, so it can't have shaped a training.
    """
    found = [Stage("questions", ())]
    untrained = [name for name in ARMS if name not in TRAINED]
    found += [Stage(f"validate/{name}", ("questions",)) for name in untrained]
    for seed in size.seeds:
        found.append(Stage(f"search/mcts@{seed}", ("questions",)))
        found.append(Stage(f"search/chains@{seed}", (f"search/mcts@{seed}",)))
        for name in TRAINED:
            arm = ARMS[name]
            after = (f"search/{arm.data}@{seed}",) if arm.data else ("questions",)
            if arm.rl and arm.data:
                found.append(Stage(f"warm/{name}@{seed}", after))
                after = (f"warm/{name}@{seed}",)
            trained = Stage(f"train/{name}@{seed}", after)
            found.append(trained)
            if seed == size.seeds[0]:
                found.append(Stage(f"validate/{name}@{seed}", (trained.name,)))
    every = tuple(stage.name for stage in found if stage.kind == "train")
    for what in ("test", "sampled"):
        found += [Stage(f"{what}/{name}", every) for name in untrained]
        found += [Stage(f"{what}/{name}@{seed}", every) for name in TRAINED for seed in size.seeds]
    return found


def size_identity(size: Size) -> dict[str, Any]:
    """Return what distinguishes experiments, as JSON holds it: all but the seeds and samples.

    Each seed is an experiment of its own, so one with more of them continues one with fewer; and
    the number of answers sampled of a finished model changes nothing that was done before.
    """
    fields = asdict(size)
    del fields["seeds"], fields["samples"]
    return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}
