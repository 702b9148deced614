"""The settings of every command and flow: each parameter with its type, bounds, default, help.

    settings = BuildSettings.checked(task="sat2", simulations=20)   # Problem names a bad field

This is the only place where a parameter is declared. `flows.parameters` makes flags and Prefect
parameters of the fields, in this order; a description becomes the flag's help. What several
commands share is a base class, so that its flags are the same everywhere.

The way of a build's settings, from the flag to the search:

    flows.parameters -> BuildSettings (here) -> flows.cli.build -> flows.stages.build
        -> flows.teachers.resolve     (TeacherSettings: which model, how it is asked)
        -> flows.stages.search        (`search_config` takes the fields of `SearchConfig` by name)

A new field of `SearchConfig` becomes a flag when `BuildSettings` has one of the same name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcts.data import ResponseStyle
from mcts.teachers.checkpoints import default_model


class Problem(Exception):
    """Something the user can correct, in one sentence; commands exit with status 2."""


class FieldProblem(Problem):
    """A `Problem` with the value of one field."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(f"{field}: {sentence}")
        self.field = field


class Flag(NamedTuple):
    """How a field is typed on the command line, where that doesn't follow from its name."""

    names: tuple[str, ...] = ()
    """The flag, with its dashes."""
    positional: bool = False
    metavar: str = ""
    former: tuple[str, ...] = ()
    """Names the field had before; they still work, and stderr names the new one."""


POSITIONAL = Flag(positional=True)


class Settings(BaseModel):
    """Base class: frozen; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
    command: ClassVar[str] = ""
    """What is typed after `vigorl`; also its section in a settings file."""

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """Make the settings.

        Raises:
            Problem: a field is bad, or fields contradict each other.
        """
        try:
            settings = cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            field = str(first["loc"][0]) if first["loc"] else "the settings"
            if first["type"] == "missing":
                shown = f"give it to `vigorl {cls.command}`, or in its settings file"
                raise FieldProblem(field, f"it is missing; {shown}") from None
            reason = f"{first['msg']} (it was {first['input']!r})"
            inner = ".".join(map(str, first["loc"][1:]))
            raise FieldProblem(field, f"{inner}: {reason}" if inner else reason) from None
        settings.check()
        return settings

    def check(self) -> None:
        """Compare fields with each other.

        Raises:
            Problem: they contradict each other.
        """

    def params(self) -> dict[str, Any]:
        """Return the settings as `runs.params` keeps them and `--config` reads them."""
        return self.model_dump(mode="json")


# ---- what several commands share -----------------------------------------------------------------


class HomeSettings(Settings):
    """Where the warehouse is."""

    home: str | None = Field(
        None, description="warehouse: a folder or s3:// URL; $VIGORL_HOME when left out"
    )


class ServerSettings(Settings):
    """How a served model is asked."""

    space: str | None = Field(
        None,
        description="the model's coordinates: qwen2-vl, qwen2.5-vl, qwen3-vl, original",
    )
    min_pixels: int | None = Field(
        None, ge=1, description="fewest pixels the server's processor resizes an image to"
    )
    max_pixels: int | None = Field(
        None, ge=1, description="most pixels the server's processor resizes an image to"
    )
    timeout: float = Field(600.0, gt=0, description="seconds a server may take for one request")


class TeacherSettings(ServerSettings, HomeSettings):
    """Which model is asked, and how; `flows.teachers.resolve` makes a teacher of it."""

    teacher: str = Field(
        default_factory=default_model,
        description="a registered model, a checkpoint folder, vllm:MODEL, or the URL of an "
        "OpenAI-compatible server, or several of one model with commas between; the registered "
        "default when left out",
    )
    model: str | None = Field(
        None, description="model to ask a server for; its first when left out"
    )
    revision: str | None = Field(
        None, description="revision of a server's weights, where its name says none"
    )
    concurrency: int = Field(32, ge=1, description="requests at once")

    @classmethod
    def of(cls, settings: Settings, **values: Any) -> TeacherSettings:
        """Return the part of `settings` that is about a teacher, with other `values` in it."""
        shared = {name: getattr(settings, name, None) for name in TeacherSettings.model_fields}
        given = {name: value for name, value in {**shared, **values}.items() if value is not None}
        return TeacherSettings.checked(**given)


_STYLE = (
    "rewrite each trace: grounded (those that can also be written ungrounded), ungrounded, "
    "answer_only or zoom"
)

# ---- one model a command -------------------------------------------------------------------------


class ImportSettings(HomeSettings):
    """What `vigorl import` takes."""

    command = "import"
    task: Annotated[str, POSITIONAL] = Field(
        "", description="task or benchmark the questions belong to"
    )
    path: Annotated[str, POSITIONAL] = Field("", description="a file, or a folder of shards")
    split: str | None = Field(None, description="split; the file name says it when left out")
    limit: int | None = Field(None, ge=1, description="most questions to read")
    image_root: str | None = Field(None, description="folder that relative image paths start from")
    max_rejects: int | None = Field(
        None, ge=0, description="most bad rows; 10, or a tenth of the rows if more, when left out"
    )
    columns: str | None = Field(
        None, description="read any table: question=COLUMN,image=COLUMN,answer=COLUMN, ..."
    )
    boxes: str = Field(
        "xyxy", description="with --columns, what four numbers are: xyxy, xywh, xyxy/1000, ..."
    )
    into: str | None = Field(
        None, description="with reference-trees, the task that the trees belong to"
    )
    space: str = Field(
        "original", description="with reference-trees, the coordinates of their points"
    )


class BuildSettings(TeacherSettings):
    """What `vigorl build` and the deployments `build-traces/*` take."""

    command = "build"
    task: Annotated[str, POSITIONAL] = Field(
        min_length=1, description="task whose questions are searched"
    )
    split: str = Field("train", description="split of its questions")
    limit: int | None = Field(None, ge=1, description="most questions; all when left out")
    prompt: str | None = Field(
        None, description="prompt file; the teacher's own, or the task's, when left out"
    )
    simulations: int = Field(8, ge=1, description="simulations a tree")
    children: int = Field(3, ge=1, description="steps sampled at an expansion")
    rollouts: int = Field(2, ge=1, description="answers sampled from each new step")
    max_depth: int = Field(10, ge=1, description="steps after which only an answer may follow")
    exploration: float = Field(2.0, ge=0, description="the constant c of UCT")
    wave: int = Field(1, ge=1, description="simulations at once within a tree")
    strategy: Literal["mcts", "best-of-n", "linear"] = Field(
        "mcts", description="tree search, or a baseline: whole chains, or chains step by step"
    )
    samples: int | None = Field(
        None, ge=1, description="chains of a baseline; 16, or what its tree budget allows"
    )
    enough: int | None = Field(
        None, ge=1, description="distinct right lines of reasoning at which a tree stops"
    )
    tree_tokens: int | None = Field(None, ge=1, description="tokens written that stop a tree")
    tree_requests: int | None = Field(None, ge=1, description="requests that stop a tree")
    tree_seconds: float | None = Field(
        None, gt=0, description="seconds of requests that stop a tree"
    )
    run_tokens: int | None = Field(None, ge=1, description="tokens written that stop the run")
    run_requests: int | None = Field(None, ge=1, description="requests that stop the run")
    run_seconds: float | None = Field(None, gt=0, description="seconds that stop the run")
    temperature: float = Field(1.0, ge=0, description="sampling temperature")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of the sampling")
    step_tokens: int | None = Field(
        None, ge=1, description="most tokens of a step; 512, or the teacher's own"
    )
    seed: int = Field(0, ge=0, description="seed of the searches")
    concurrency: int = Field(32, ge=1, description="trees searched at once")
    shard: int = Field(64, ge=1, description="trees committed at once")
    retry_failed: bool = Field(
        False, description="search questions again whose tree failed, under a new name"
    )
    replay: bool = Field(
        False, description="rebuild the trees from recorded responses, without a server"
    )
    regrade: bool = Field(False, description="report what today's grader would score differently")
    dry_run: bool = Field(False, description="search a few questions and predict the cost of all")
    pilot: int = Field(4, ge=1, description="questions a dry run searches")
    price_in: float | None = Field(None, ge=0, description="money a million prompt tokens cost")
    price_out: float | None = Field(None, ge=0, description="money a million written tokens cost")
    filters: str | None = Field(
        None, description="YAML file of filters and their values; `vigorl filters` prints one"
    )
    metrics: int | None = Field(
        None, ge=1, le=65535, description="port for Prometheus to read the progress from"
    )

    def check(self) -> None:
        """See `Settings.check`."""
        if self.samples and self.strategy == "mcts":
            raise FieldProblem("samples", "they are for the strategies best-of-n and linear")
        if self.replay + self.regrade + self.dry_run > 1:
            raise Problem("replay, regrade and dry_run: give one of them")
        if (self.price_in is None) != (self.price_out is None):
            raise Problem("price_in and price_out: give both, or neither")


class CurateSettings(HomeSettings):
    """What `vigorl curate` and the deployments `curate-traces/*` take."""

    command = "curate"
    task: Annotated[str, POSITIONAL] = Field(
        min_length=1, description="task whose trees are curated"
    )
    publish: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="publish what is kept as this dataset",
    )
    filters: str | None = Field(
        None, description="YAML file of filters and their values; `vigorl filters` prints one"
    )
    dry_run: bool = Field(
        False, description="only show what would be kept and dropped; nothing is written"
    )

    def check(self) -> None:
        """See `Settings.check`."""
        if self.dry_run and self.publish:
            raise Problem("dry_run and publish: give one of them")


class JudgeSettings(TeacherSettings):
    """What `vigorl judge` and the deployments `judge-traces/*` take."""

    command = "judge"
    task: Annotated[str, POSITIONAL] = Field(
        min_length=1, description="task whose traces are judged"
    )
    what: Literal["grounding", "behaviors", "necessity"] = Field(
        "grounding", description="what the model is asked about"
    )
    judge: str | None = Field(
        None, description="judge of grounding and behaviors, named as a teacher is"
    )
    samples: int = Field(8, ge=1, description="answers drawn where one does not give a probability")
    limit: int | None = Field(
        None, ge=1, description="most traces, those with an answer not counted; all when left out"
    )
    retry_failed: bool = Field(False, description="ask again what failed for good before")
    concurrency: int = Field(16, ge=1, description="requests at once")
    teacher: str = Field(
        default_factory=default_model,
        description="model that answers anew for necessity: a registered model, a folder, or a URL",
    )

    def check(self) -> None:
        """See `Settings.check`."""
        if self.what != "necessity" and not self.judge:
            raise FieldProblem("judge", f"{self.what} needs a model that judges; give its URL")


class EvaluateSettings(ServerSettings, HomeSettings):
    """What `vigorl evaluate` and the deployments `evaluate-model/*` take."""

    command = "evaluate"
    model: Annotated[str, POSITIONAL] = Field(
        min_length=1,
        description="a registered model, a trained model's name or id, a folder, or a URL",
    )
    benchmark: Annotated[str, POSITIONAL] = Field(
        min_length=1, description="task whose questions are asked"
    )
    split: str | None = Field(
        None, description="its split; test, or else validation, when left out"
    )
    limit: int | None = Field(None, ge=1, description="most questions; all when left out")
    against: str | None = Field(
        None, description="a second model, asked the same, to compare question by question"
    )
    control: Literal["blank", "shuffled"] | None = Field(
        None, description="grey images, or those of another question, in place of its own"
    )
    temperature: float = Field(0.0, ge=0, description="0 is greedy; the paper's tables are at 0.5")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of the sampling")
    samples: int = Field(1, ge=1, description="answers to each question, above temperature 0")
    response_style: Annotated[ResponseStyle | None, Flag(former=("form",))] = Field(
        None, description="response style asked for; the one the model was taught when left out"
    )
    prompt: str | None = Field(None, description="prompt file, in place of a response style's own")
    min_thoughts: int = Field(3, ge=1, description="steps that the prompt demands at least")
    seed: int = Field(0, ge=0, description="seed of the sampling and of shuffled images")
    served: str | None = Field(
        None, description="model to ask a server for; its first when left out"
    )
    concurrency: int = Field(64, ge=1, description="requests at once")

    def check(self) -> None:
        """See `Settings.check`."""
        if self.samples > 1 and self.temperature == 0:
            raise FieldProblem(
                "samples", "at temperature 0 all are the same; give a temperature as well"
            )
        if self.response_style and self.prompt:
            raise Problem("response_style and prompt: give one of them")


class PublishSettings(HomeSettings):
    """What `vigorl dataset publish` takes."""

    command = "dataset publish"
    name: Annotated[str, POSITIONAL] = Field(description="name; the version number is given")
    sql: str = Field(description="a SELECT that yields trace_id")
    response_style: Annotated[ResponseStyle | None, Flag(former=("variant",))] = Field(
        None, description=_STYLE
    )


class ExportSettings(HomeSettings):
    """What `vigorl dataset export` takes."""

    command = "dataset export"
    dataset: Annotated[str, POSITIONAL] = Field(description="name@vN, or name for the newest")
    out: Path | None = Field(
        None, description="folder to write into; may be left out with --push-to"
    )
    to: str = Field("trl", description="format: trl, llama-factory, grpo, verl, easyr1, dpo or prm")
    response_style: Annotated[ResponseStyle | None, Flag(former=("variant",))] = Field(
        None, description=_STYLE
    )
    space: str | None = Field(
        None, description="coordinates of the model to train; the teacher's when left out"
    )
    prompt: str | None = Field(
        None, description="prompt file; the response style's, or the task's, when left out"
    )
    files: str = Field(
        "parquet", description="parquet with the images inside, or jsonl with them beside it"
    )
    push_to: str | None = Field(
        None,
        description="also put it on a hub, into the repository owner/name (HF_TOKEN, HF_ENDPOINT)",
    )
    public: bool = Field(False, description="let everybody read a repository that is new")

    def check(self) -> None:
        """See `Settings.check`."""
        if self.out is None and self.push_to is None:
            raise Problem("--out: name a folder to write into, or a repository with --push-to")


class GallerySettings(HomeSettings):
    """What `vigorl gallery` takes."""

    command = "gallery"
    out: Path = Field(Path("gallery"), description="folder to write the pages into")
    sql: str | None = Field(
        None, description="a statement that yields the trace_id of what to show"
    )
    dropped_by: str | None = Field(
        None, description="show what this filter dropped, and what its reasons name"
    )
    limit: int = Field(500, ge=1, description="most traces, where no --sql is given")

    def check(self) -> None:
        """See `Settings.check`."""
        if self.sql and self.dropped_by:
            raise Problem("--sql and --dropped-by: give one of them")


class LintSettings(Settings):
    """What `vigorl lint-reward` takes."""

    command = "lint-reward"
    reward: Annotated[str, POSITIONAL] = Field(
        "grounded", description="a built-in reward, or module:function"
    )
    space: str = Field("qwen3-vl", description="coordinates that completions are written in")
    seed: int = Field(0, description="seed of what is drawn at random")
    one_block: bool = Field(False, description="write all thoughts in one think block")
    messages: bool = Field(False, description="give completions as chat messages")


class AskSettings(ServerSettings):
    """What `vigorl ask` takes."""

    command = "ask"
    model: Annotated[str, POSITIONAL] = Field(
        min_length=1, description="a registered model, a checkpoint folder, or a URL"
    )
    words: Annotated[tuple[str, ...], Flag(positional=True, metavar="IMAGE... QUESTION")] = Field(
        description="images, then the question"
    )
    choice: tuple[str, ...] = Field((), description="an answer to choose from; repeatable")
    n: int = Field(1, ge=1, description="answers to sample")
    seed: int = Field(0, ge=0, description="seed of the sampling")
    temperature: float | None = Field(
        None, ge=0, description="0 for one answer, 1 for several, when left out"
    )
    out: Path = Field(Path("ask.png"), description="image with the points drawn")
    served: Annotated[str | None, Flag(names=("--model",))] = Field(
        None, description="model to ask a server for; its first when left out"
    )
    prompt: str | None = Field(None, description="prompt file to ask with")


class ServeSettings(HomeSettings):
    """What `vigorl serve` takes; a build's own server (`vllm:MODEL`) has the defaults."""

    command = "serve"
    model: Annotated[str, POSITIONAL] = Field(
        min_length=1, description="checkpoint folder, or a model's name on a hub"
    )
    extra: Annotated[tuple[str, ...], Flag(positional=True, metavar="[-- FLAGS]")] = Field(
        (), description="more flags for vLLM"
    )
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int | None = Field(8000, ge=1, le=65535, description="port to listen on")
    name: str | None = Field(
        None,
        min_length=1,
        description="name to serve it under; the weights' hash is in it when left out",
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one copy of the model")
    data_parallel: int = Field(1, ge=1, description="copies of the model")
    context: int | None = Field(
        None, ge=1, description="most tokens of prompt and answer; what fits when left out"
    )
    images: int = Field(8, ge=1, description="most images in one prompt")
    min_pixels: int | None = Field(None, ge=1, description="fewest pixels an image is resized to")
    max_pixels: int | None = Field(None, ge=1, description="most pixels an image is resized to")
    seed: int = Field(0, ge=0, description="seed of requests that have none")
    cpu: bool = Field(False, description="this vLLM is a build for CPUs")
    timeout: float = Field(1800.0, gt=0, description="seconds it may take to start")


class TrainSettings(HomeSettings):
    """What both kinds of training take."""

    kind: ClassVar[str] = ""
    recipe: Annotated[str, POSITIONAL] = Field(
        min_length=1, description="a built-in recipe, or a YAML file"
    )
    dataset: str | None = Field(
        None, description="dataset version: name@vN, or name for the newest"
    )
    model: str | None = Field(
        None,
        description="model to start from: a registered one, a trained one, a folder; the recipe's "
        "when left out",
    )
    name: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        description="name of the model; the recipe's and a hash when left out",
    )
    override: Annotated[tuple[str, ...], Flag(names=("-o",), metavar="KEY=VALUE")] = Field(
        (), description="key=value in place of the recipe's; repeatable"
    )


class SftSettings(TrainSettings):
    """What `vigorl train sft` and the deployments `train-sft/*` take."""

    command, kind = "train sft", "sft"

    def check(self) -> None:
        """See `Settings.check`."""
        if not self.dataset:
            raise FieldProblem("dataset", "sft needs a dataset version, such as sat2-sft@v1")


class GrpoSettings(TrainSettings):
    """What `vigorl train grpo` and the deployments `train-grpo/*` take."""

    command, kind = "train grpo", "grpo"
    dataset: str | None = Field(
        None, description="ask its questions: name@vN, or name for the newest"
    )
    task: str | None = Field(None, description="ask the questions of a task instead")
    split: str = Field("train", description="split of the task's questions")
    limit: int | None = Field(None, ge=1, description="most questions of the task")
