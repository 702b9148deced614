"""What the claim's experiment does, as data: its arms, its sizes, and its stages in order.

    for stage in stages(FULL): stage.name, stage.after
    ARMS["vigorl"].title             # its row in the table

Every arm starts from the embedded model that zooms and, unless it says so, sees the same questions;
data made in two ways has the same number of tokens, and the optimizer steps of every trained arm
are the same. `make claim` runs all arms, `make claim-zoom` those of the part `zoom` alone; they
share their stages.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mcts.data import ResponseStyle, content_id
from training.recipes import load_recipe
from vigorl_nano.claims.scores import Expectation
from vigorl_nano.claims.stages import Stage

ZOOM, NO_ZOOM = ResponseStyle.ZOOM, ResponseStyle.ANSWER_ONLY
UNSEEN = "relative_position"
"""The kind of questions that some arms are not trained on."""
PARTS = ("zoom", "rl")
"""Of the claim: what zoom is worth, and what search and reinforcement are."""

PASS_AT = 4
"""Answers to each training question, and behind each prefix, that measure how hard it is."""
PREFIXES = 2
"""Most prefixes of a question that are measured, and that GRPO goes on from."""
HALF_CHAINS = 4
"""Chains of half a question's budget, where a search is compared with best-of-n; a search is given
as many tokens as four further ones wrote."""
LESS = 150
"""Tokens that the search's limit is lower there: its last simulation goes over it."""
RECIPES = ("nano-zoom-sft", "nano-zoom-grpo")
"""Of every training; they are part of the plan, and so is each figure of this file."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large the experiment is. Two sizes never share a stage; see `size_identity`."""

    questions: int
    """Training questions, of all kinds alike."""
    test: int
    """Questions asked only when every model is trained."""
    seeds: tuple[int, ...]
    """Of searches and trainings; an arm has a model for each."""
    simulations: int
    """Simulations a tree."""
    per_question: int
    """Most dialogues of a question in a training set."""
    warm_steps: int
    """Optimizer steps of SFT before GRPO."""
    rl_steps: int
    """Optimizer steps of GRPO after SFT."""
    draw_seeds: tuple[int, ...] = (81_001, 81_005)
    """Of the questions of each split. 81,002 to 81,004 drew test questions whose results shaped
    this plan, so it is tested on others."""
    sft: tuple[str, ...] = ()
    """What differs from the recipe in every SFT, as `--set`."""
    grpo: tuple[str, ...] = ()
    """What differs from the recipe in every GRPO, as `--set`."""
    start: str = "nano-zoom"
    """The model that every arm starts from, and the teacher of every search."""

    @property
    def name(self) -> str:
        """A short unique name: `zoom-1a2b3c4d`."""
        return f"zoom-{content_id(size_identity(self))[:8]}"

    @property
    def all_steps(self) -> int:
        """Optimizer steps of every trained arm."""
        return self.warm_steps + self.rl_steps


FULL = Size(160, 400, (0, 1, 2, 3, 4), 8, 6, warm_steps=40, rl_steps=70)
QUICK = Size(
    12, 16, (0,), 3, 4, warm_steps=2, rl_steps=2,
    sft=("batch=8", "micro_batch=8"), grpo=("questions=4", "group=4", "micro_batch=16"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to a student, or a model as it is."""

    title: str
    """A row's name in the table."""
    response_style: ResponseStyle = ZOOM
    """How it answers."""
    data: str | None = None
    """Where its SFT dialogues come from: `mcts`, or `linear` sampling."""
    reward: str | None = None
    """The reward of the GRPO that its training ends with; None where it ends with SFT."""
    difficulty: bool = False
    """Whether that GRPO takes questions of medium difficulty to the student after SFT; else all."""
    dead_group_tokens: float = 0
    """Its budget for replacing dead groups; see the recipe's field."""
    prefixes: int = 0
    """Most prefixes of a question that it goes on from, beside whole answers."""
    without: str = ""
    """A kind of questions that no part of its training sees."""
    part: str = "zoom"
    """The part of the claim that it is trained for."""

    @property
    def trained(self) -> bool:
        """Whether it differs from the start."""
        return bool(self.data or self.reward)

    @property
    def warm_up(self) -> str:
        """The SFT before its GRPO, as in stages: where its dialogues come from, and whether all."""
        return f"{self.data}-unseen" if self.without else str(self.data)


def _after_search(title: str, reward: str = "zoom", **more: Any) -> Arm:
    return Arm(f"searched SFT + GRPO{title}", data="mcts", reward=reward, **more)


ARMS: dict[str, Arm] = {
    "no-zoom": Arm("base, without zoom", NO_ZOOM),
    "base": Arm("base, zooms"),
    "linear": Arm("SFT on sampled dialogues", data="linear"),
    "search": Arm("SFT on searched dialogues", data="mcts"),
    "grpo": Arm("GRPO from the base", reward="zoom"),
    "vigorl": _after_search(""),
    "plain": _after_search(", no bonus for places", "zoom_no_bonus"),
    "live": _after_search(", dead groups replaced", dead_group_tokens=1, part="rl"),
    "difficulty": _after_search(", its own difficulty", difficulty=True, part="rl"),
    "prefixes": _after_search(
        ", its own difficulty, prefixes", difficulty=True, prefixes=PREFIXES, part="rl"
    ),
    "whole": _after_search(
        ", all three", difficulty=True, dead_group_tokens=1, prefixes=PREFIXES, part="rl"
    ),
    "search-unseen": Arm(
        "SFT on searched dialogues, one kind unseen", data="mcts", without=UNSEEN, part="rl"
    ),
    "unseen": _after_search(", one kind unseen", without=UNSEEN, part="rl"),
}
"""Every row of the table by its name in stages and models."""
TITLES = {name: arm.title for name, arm in ARMS.items()}

CONTROLS = ("noise", "elsewhere", "gold", "blank")
"""What is shown in place of crops, or of every image; `gold` shows where the zooming gap ends."""
CONTROLLED = ("base", "vigorl")
"""Arms that are also evaluated so."""

EXPECTED = (
    Expectation("base", "no-zoom", 0.25),
    Expectation("vigorl", "search", 0.05),
    Expectation("vigorl", "linear", 0.08),
    Expectation("vigorl", "vigorl+noise", 0.20),
    Expectation("vigorl", "base"),
    Expectation("vigorl", "plain"),
    Expectation("grpo", "base"),
    Expectation("search", "linear", 0.03),
    Expectation("whole", "search", 0.05),
    Expectation("whole", "linear", 0.08),
    Expectation("whole", "vigorl", 0.03),
    Expectation("live", "vigorl"),
    Expectation("difficulty", "vigorl"),
    Expectation("prefixes", "difficulty"),
    Expectation("unseen", "search-unseen"),
    Expectation("unseen", "search-unseen", families=(UNSEEN,)),
    Expectation("unseen", "base", families=(UNSEEN,)),
)
"""What should beat what, and by how much at least."""


def stages(size: Size, part: str | None = None) -> list[Stage]:
    """List every stage, each behind those it needs; one seed's before the next.

    The test split is used only when every model is trained, so it can't have shaped a training.

    Args:
        part: only those of this part of the claim, and what they need.
    """
    arms = {name: arm for name, arm in ARMS.items() if part in (None, arm.part)}
    found = {"questions": Stage("questions", ())}

    def add(name: str, *after: str) -> None:
        found.setdefault(name, Stage(name, after))

    for seed in size.seeds:
        add(f"search/mcts@{seed}", "questions")
        add(f"search/linear@{seed}", f"search/mcts@{seed}")
        if part in (None, "rl"):
            add(f"solve/mcts@{seed}", f"search/mcts@{seed}")
        for name, arm in arms.items():
            before = f"search/{arm.data}@{seed}" if arm.data else "questions"
            if arm.data and arm.reward:
                add(warm := f"warm/{arm.warm_up}@{seed}", before)
                before = warm
            if arm.difficulty:
                add(f"difficulty/{arm.warm_up}@{seed}", before)
                before = f"difficulty/{arm.warm_up}@{seed}"
            if arm.trained:
                add(f"train/{name}@{seed}", before)
    every = tuple(name for name, stage in found.items() if stage.kind == "train")
    for name, arm in arms.items():
        of = [f"{name}@{seed}" for seed in size.seeds] if arm.trained else [name]
        for kind in ("test", *CONTROLS) if name in CONTROLLED else ("test",):
            for one in of:
                add(f"{kind}/{one}", *every)
    return list(found.values())


def size_identity(size: Size) -> dict[str, Any]:
    """Return what distinguishes experiments, as JSON holds it: all but the seeds."""
    fields = asdict(size)
    del fields["seeds"]
    for later in ("sft", "grpo"):
        if not fields[later]:  # as it was before they could be given
            del fields[later]
    return {
        **{name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()},
        "plan": content_id(
            {name: asdict(arm) for name, arm in ARMS.items()},
            [load_recipe(name).settings() for name in RECIPES],
            [PASS_AT, PREFIXES, HALF_CHAINS, LESS, UNSEEN],
        ),
    }
