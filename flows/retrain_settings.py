"""What a cycle of retraining takes, and the folder it is fed from.

settings = RetrainSettings.checked(task="sat2", min_new_traces=200)
settings.policy()            # curation.scores.gate.GatePolicy
"""

from __future__ import annotations

from typing import Annotated, Literal

from curation.scores.gate import GatePolicy
from flows.settings import HomeSettings
from flows.settings_base import POSITIONAL, FieldProblem, Flag, option

_GATE = GatePolicy()
BUDGETS = ("run_tokens", "run_money", "price_in", "price_out", "run_seconds", "run_hours")
"""Settings of one run; all others hold for a whole cycle, however often it is run again."""


class RetrainSettings(HomeSettings):
    """What `vigorl retrain` and the deployments `retrain/*` take."""

    command = "retrain"
    task: Annotated[str, POSITIONAL] = option(..., "task to retrain on", min_length=1)
    sft_recipe: str = option("", "recipe of the SFT; none when left out")
    grpo_recipe: str = option("", "recipe of the GRPO behind it; none when left out")
    start: Literal["base", "champion"] = option(
        "base", "train from the base on all traces, or from the champion on new ones and a replay"
    )
    replay: float = option(
        0.5, "with start=champion, share of the old traces shown again", ge=0, le=1
    )
    teacher: str | None = option(
        None, "model that searches, as for `vigorl build`; champion:TASK for the student itself"
    )
    beside: str | None = option(
        None, "a second model that searches a share of the questions, such as the teacher before"
    )
    beside_share: float = option(0.5, "with beside, share of new questions it searches", gt=0, lt=1)
    space: str | None = option(None, "coordinates of a served teacher")
    filters: str | None = option(
        None, "YAML file of filters and their values, as for `vigorl build`"
    )
    simulations: int = option(8, "simulations a tree", ge=1)
    per_question: int = option(6, "most traces of a question in the dataset", ge=1)
    min_new_traces: int = option(50, "kept traces not trained on yet that start a training", ge=1)
    at_most_every: float = option(0.0, "hours between the beginnings of two cycles, at least", ge=0)
    leave_paused: bool = option(False, "leave a cycle that its budget stopped to another run")
    gate_split: str = option("gate", "split that decides, and is used for nothing else")
    alpha: float = option(_GATE.alpha, "share of champions that luck alone may replace", gt=0, lt=1)
    minimum_gain: float = option(_GATE.minimum, "gain in accuracy that is worth a change", ge=0)
    family_margin: float = option(_GATE.family_margin, "loss that a family may show", ge=0)
    ask_person: bool = option(False, "let a person decide where a gain could be luck")
    run_tokens: int | None = option(
        None, "tokens that the searches of a cycle may write in a run", ge=1
    )
    run_money: float | None = option(
        None,
        "money that the searches of a cycle may cost in a run, by the forecast's mix of tokens",
        gt=0,
    )
    price_in: float | None = option(None, "money a million prompt tokens cost", ge=0)
    price_out: float | None = option(None, "money a million written tokens cost", ge=0)
    run_seconds: float | None = option(
        None, "seconds that the searches of a cycle may take in a run", gt=0
    )
    run_hours: float | None = option(
        None, "hours a cycle may take in a run; behind them it begins no further stage", gt=0
    )
    sft_override: Annotated[tuple[str, ...], Flag(metavar="FIELD=VALUE")] = option(
        (), "a field of the SFT's recipe; repeatable"
    )
    grpo_override: Annotated[tuple[str, ...], Flag(metavar="FIELD=VALUE")] = option(
        (), "a field of the GRPO's recipe; repeatable"
    )

    def check(self) -> None:
        """See `Settings.check`."""
        if not (self.sft_recipe or self.grpo_recipe):
            raise FieldProblem("sft_recipe", "a cycle trains: name a recipe of SFT or of GRPO")
        if (self.price_in is None) != (self.price_out is None):
            raise FieldProblem("price_in", "give price_in and price_out, or neither")
        if self.run_money is not None and not (self.price_in or self.price_out):
            raise FieldProblem("run_money", "say what tokens cost: price_in and price_out")
        if self.gate_split in ("train", "test", "validation"):
            raise FieldProblem(
                "gate_split", f"{self.gate_split} is used for other things; the gate's is its own"
            )

    def policy(self) -> GatePolicy:
        """Return what a challenger must show."""
        return GatePolicy(
            alpha=self.alpha, minimum=self.minimum_gain, family_margin=self.family_margin,
            ask_person=self.ask_person,
        )  # fmt: skip


class InboxSettings(HomeSettings):
    """What `vigorl inbox` takes."""

    command = "inbox"
    task: Annotated[str, POSITIONAL] = option("", "task whose files are taken; all when left out")
    folder: str | None = option(
        None, "a folder or s3:// URL that holds one a task; $VIGORL_INBOX, or inbox in the "
        "warehouse, when left out"
    )  # fmt: skip
    still: float = option(5.0, "seconds for which a file must not have changed", gt=0)
