"""What the zoom claim's experiment does, as data: its arms, its sizes, and its stages in order.

    for stage in stages(FULL): stage.name, stage.after
    ARMS["vigorl"].title             # its row in the table

Every arm starts from the embedded model that zooms and sees the same questions; data made in two
ways has the same number of tokens, and the optimizer steps of every trained arm are the same.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mcts.data import ResponseStyle, content_id
from vigorl_nano.claim.stages import Stage

ZOOM, NO_ZOOM = ResponseStyle.ZOOM, ResponseStyle.ANSWER_ONLY
TEMPERATURE = 0.5
"""Of sampled test answers, as in the paper's tables."""


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
    draw_seeds: tuple[int, ...] = (81_001, 81_002)
    """Of the questions of each split."""
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
QUICK = Size(16, 24, (0,), 3, 4, warm_steps=3, rl_steps=2)


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
    dead_group_tokens: float = 0
    """The budget of that GRPO for replacing dead groups; see the recipe's field."""

    @property
    def trained(self) -> bool:
        """Whether it differs from the start."""
        return bool(self.data or self.reward)


ARMS: dict[str, Arm] = {
    "no-zoom": Arm("base, without zoom", NO_ZOOM),
    "base": Arm("base, zooms"),
    "linear": Arm("SFT on sampled dialogues", data="linear"),
    "search": Arm("SFT on searched dialogues", data="mcts"),
    "grpo": Arm("GRPO from the base", reward="zoom"),
    "vigorl": Arm("searched SFT + GRPO", data="mcts", reward="zoom"),
    "live": Arm(
        "searched SFT + GRPO, dead groups replaced",
        data="mcts",
        reward="zoom",
        dead_group_tokens=1,
    ),
    "plain": Arm("searched SFT + GRPO, no bonus for places", data="mcts", reward="zoom_no_bonus"),
}
"""Every row of the table by its name in stages and models."""

CONTROLS = ("noise", "elsewhere", "gold", "blank")
"""What is shown in place of crops, or of every image; `gold` shows where the zooming gap ends."""
CONTROLLED = ("base", "vigorl")
"""Arms that are also evaluated so."""

EXPECTED = (
    ("base", "no-zoom", 0.25),
    ("vigorl", "search", 0.05),
    ("vigorl", "linear", 0.08),
    ("vigorl", "vigorl+noise", 0.20),
    ("vigorl", "base", 0.0),
    ("vigorl", "plain", 0.0),
    ("grpo", "base", 0.0),
    ("search", "linear", 0.0),
)
"""What should beat what, and by how much at least; the interval must exclude 0 as well."""


def stages(size: Size) -> list[Stage]:
    """List every stage, each behind those it needs; one seed's before the next.

    The test split is used only when every model is trained, so it can't have shaped a training.
    """
    found = [Stage("questions", ())]
    for seed in size.seeds:
        found.append(Stage(f"search/mcts@{seed}", ("questions",)))
        found.append(Stage(f"search/linear@{seed}", (f"search/mcts@{seed}",)))
        for name, arm in ARMS.items():
            after = (f"search/{arm.data}@{seed}",) if arm.data else ("questions",)
            if arm.data and arm.reward:
                warm = Stage(f"warm/{arm.data}@{seed}", after)
                found += [warm] if warm not in found else []
                after = (warm.name,)
            if arm.trained:
                found.append(Stage(f"train/{name}@{seed}", after))
    every = tuple(stage.name for stage in found if stage.kind == "train")
    for name, arm in ARMS.items():
        of = [f"{name}@{seed}" for seed in size.seeds] if arm.trained else [name]
        found += [Stage(f"test/{one}", every) for one in of]
        if name in CONTROLLED:
            found += [Stage(f"{control}/{one}", every) for control in CONTROLS for one in of]
    return found


def size_identity(size: Size) -> dict[str, Any]:
    """Return what distinguishes experiments, as JSON holds it: all but the seeds."""
    fields = asdict(size)
    del fields["seeds"]
    return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}
