"""The settings of every command and flow: each parameter with its type, bounds, default, help.

    settings = BuildSettings.checked(task="sat2", simulations=20)   # Problem names a bad field

A parameter is declared once: here, in `flows.search_settings` if it shapes trees or is about
zooming, or in a file of its command's (`flows.dataset_settings`, `flows.retrain_settings`).
`flows.parameters` makes flags and Prefect parameters of the fields, in this order; a description
becomes the flag's help. What several commands share is a base class, so that its flags are the same
everywhere.

The way of a build's settings, from the flag to the search:

    flows.parameters -> BuildSettings (here) -> flows.cli.build -> flows.stages.build
        -> flows.teachers.resolve     (TeacherSettings: which model)
        -> flows.teachers.response_styles     (ZoomSettings: how it is asked, and what it is shown)
        -> flows.stages.search        (`search_config` takes the fields of `SearchConfig` by name)

A new field of `SearchConfig` becomes a flag when `BuildSettings` has one of the same name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from flows import server_options
from flows.search_settings import SearchSettings, ZoomSettings
from flows.settings_base import POSITIONAL, FieldProblem, Flag, Problem, Settings, option
from mcts.data import ResponseStyle
from mcts.teachers.checkpoints import default_model
from mcts.teachers.identities import members

# ---- what several commands share -----------------------------------------------------------------


class HomeSettings(Settings):
    """Where the warehouse is."""

    home: str | None = option(None, "warehouse: a folder or s3:// URL; $VIGORL_HOME when left out")


class ServerSettings(Settings):
    """How a served model is asked."""

    space: str | None = option(
        None,
        "the model's coordinates: qwen2-vl, qwen2.5-vl, qwen3-vl, original, normalized-1, "
        "normalized-1000, molmo; +json, +xml or +boxes behind it where it writes places so",
    )
    min_pixels: int | None = option(
        None, "fewest pixels the server's processor resizes an image to", ge=1
    )
    max_pixels: int | None = option(
        None, "most pixels the server's processor resizes an image to", ge=1
    )
    timeout: float = option(600.0, "seconds a server may take for one request", gt=0)
    api_key_env: server_options.KeyName = option(
        None, "environment variable of the API key; VIGORL_API_KEY, OPENAI_API_KEY when left out"
    )
    headers: Annotated[
        server_options.Headers, Flag(names=("--server-header",), metavar="NAME=VALUE")
    ] = option((), "header for a server; $VARIABLE in it is filled in; repeatable")
    body: Annotated[
        server_options.BodyFields, Flag(names=("--server-body",), metavar="KEY=JSON")
    ] = option((), "further field of a server's requests; repeatable")
    refusals: int = option(8, "questions in a row refused alike that stop a run; 0: never", ge=0)
    server_can: server_options.Abilities = option(
        None, "what a server can: continue,stop,n,seed; or no-continue; found out when left out"
    )


class TeacherSettings(ServerSettings, HomeSettings):
    """Which model is asked, and how; `flows.teachers.resolve` makes a teacher of it."""

    teacher: str = Field(
        default_factory=default_model,
        description="a registered model, one trained here or champion:TASK, a checkpoint folder, "
        "vllm:MODEL, served:NAME of `vigorl serve --ray`, or the URL of an OpenAI-compatible "
        "server, or several of one model with commas between; 'A + B' asks both by turns; the "
        "registered default when left out",
    )
    model: str | None = option(None, "model to ask a server for; its first when left out")
    revision: str | None = option(None, "revision of a server's weights, where its name says none")
    concurrency: int = option(32, "requests at once", ge=1)

    @classmethod
    def of(cls, settings: Settings, **values: Any) -> TeacherSettings:
        """Return the part of `settings` that is about a teacher, with other `values` in it."""
        shared = {name: getattr(settings, name, None) for name in TeacherSettings.model_fields}
        given = {name: value for name, value in {**shared, **values}.items() if value is not None}
        return TeacherSettings.checked(**given)


_SEARCHED_STYLE = (
    "grounded, or zoom: each step may look closer; zoom when left out if the task has a lens and "
    "the model was taught to"
)
# ---- one model a command -------------------------------------------------------------------------


class ImportSettings(HomeSettings):
    """What `vigorl import` takes."""

    command = "import"
    task: Annotated[str, POSITIONAL] = option("", "task or benchmark the questions belong to")
    path: Annotated[str, POSITIONAL] = option("", "a file, or a folder of shards")
    split: str | None = option(None, "split; the file name says it when left out")
    limit: int | None = option(None, "most questions to read", ge=1)
    image_root: str | None = option(None, "folder that relative image paths start from")
    max_rejects: int | None = option(
        None, "most bad rows; 10, or a tenth of the rows if more, when left out", ge=0
    )
    columns: str | None = option(
        None, "read any table: question=COLUMN,image=COLUMN,answer=COLUMN, ..."
    )
    boxes: str = option("xyxy", "with --columns, what four numbers are: xyxy, xywh, xyxy/1000, ...")
    into: str | None = option(None, "with reference-trees, the task that the trees belong to")
    space: str = option("original", "with reference-trees, the coordinates of their points")


class BuildSettings(TeacherSettings, ZoomSettings, SearchSettings):
    """What `vigorl build` and the deployments `build-traces/*` take."""

    command = "build"
    task: Annotated[str, POSITIONAL] = option(
        ..., "task whose questions are searched", min_length=1
    )
    split: str = option("train", "split of its questions")
    limit: int | None = option(None, "most questions; all when left out", ge=1)
    prompt: str | None = option(
        None, "prompt file; the teacher's own, or the task's, when left out"
    )
    response_style: Literal["grounded", "zoom"] | None = option(None, _SEARCHED_STYLE)
    strategy: Literal["mcts", "best-of-n", "linear", "auto"] = option(
        "mcts",
        "tree search; a baseline: whole chains, or chains step by step; or auto: whole chains, "
        "then a tree search of what they fail",
    )
    samples: int | None = option(
        None, "chains of a baseline; 16, or what its tree budget allows; of auto, 8", ge=1
    )
    enough: int | None = option(
        None, "distinct right lines of reasoning at which a tree stops", ge=1
    )
    tree_tokens: int | None = option(None, "tokens written that stop a tree", ge=1)
    tree_requests: int | None = option(None, "requests that stop a tree", ge=1)
    tree_seconds: float | None = option(None, "seconds of requests that stop a tree", gt=0)
    run_tokens: int | None = option(None, "tokens written that stop the run", ge=1)
    run_requests: int | None = option(None, "requests that stop the run", ge=1)
    run_seconds: float | None = option(None, "seconds that stop the run", gt=0)
    temperature: float = option(1.0, "sampling temperature", ge=0)
    top_p: float = option(1.0, "nucleus of the sampling", gt=0, le=1)
    step_tokens: int | None = option(None, "most tokens of a step; 512, or the teacher's own", ge=1)
    seed: int = option(0, "seed of the searches", ge=0)
    concurrency: int = option(32, "trees searched at once, over all workers", ge=1)
    shard: int = option(64, "trees committed at once", ge=1)
    on: str = option(
        "here",
        "where shards are searched: here; ray, ray:ADDRESS; or pool:NAME, a Prefect work pool",
        pattern=r"^(here|ray(:.+)?|pool:.+)$",
    )
    workers: int = option(4, "shards searched at once, with on", ge=1)
    only_new: bool = option(False, "search only questions that have no tree yet, whoever made it")
    retry_failed: bool = option(False, "search questions again whose tree failed, under a new name")
    replay: bool = option(False, "rebuild the trees from recorded responses, without a server")
    regrade: bool = option(False, "report what today's grader would score differently")
    dry_run: bool = option(False, "search a few questions and predict the cost of all")
    pilot: int = option(4, "questions a dry run searches", ge=1)
    price_in: float | None = option(None, "money a million prompt tokens cost", ge=0)
    price_out: float | None = option(None, "money a million written tokens cost", ge=0)
    filters: str | None = option(
        None, "YAML file of filters and their values; `vigorl filters` prints one"
    )
    metrics: int | None = option(
        None, "port for Prometheus to read the progress from", ge=1, le=65535
    )

    @model_validator(mode="before")
    @classmethod
    def _teacher_of_task(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Fill in the model that is registered for the task, where none is given."""
        if values.get("teacher") is None and isinstance(task := values.get("task"), str):
            return {**values, "teacher": default_model(task)}
        return values

    def check(self) -> None:
        """See `Settings.check`."""
        super().check()
        trees = self.strategy in ("mcts", "auto")
        self.only_for(
            "the strategies mcts and auto", trees,
            "widening distinct value_model keep_rollouts stay scale_exploration policy_prior",
        )  # fmt: skip
        self.only_for("best-of-n, linear and auto", self.strategy != "mcts", "samples")
        self.only_for("builds with a value_model", self.value_model, "value_weight value_rollouts")
        if self.replay + self.regrade + self.dry_run > 1:
            raise Problem("replay, regrade and dry_run: give one of them")
        if self.on != "here" and any(name.startswith("vllm") for name in members(self.teacher)):
            raise FieldProblem(
                "on", "each worker would start a vLLM of its own: start one with `vigorl serve`"
            )
        if (self.price_in is None) != (self.price_out is None):
            raise Problem("price_in and price_out: give both, or neither")


class CurateSettings(HomeSettings):
    """What `vigorl curate` and the deployments `curate-traces/*` take."""

    command = "curate"
    task: Annotated[str, POSITIONAL] = option(..., "task whose trees are curated", min_length=1)
    publish: str | None = option(
        None, "publish what is kept as this dataset", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
    )
    filters: str | None = option(
        None, "YAML file of filters and their values; `vigorl filters` prints one"
    )
    dry_run: bool = option(False, "only show what would be kept and dropped; nothing is written")

    def check(self) -> None:
        """See `Settings.check`."""
        if self.dry_run and self.publish:
            raise Problem("dry_run and publish: give one of them")


class JudgeSettings(TeacherSettings):
    """What `vigorl judge` and the deployments `judge-traces/*` take."""

    command = "judge"
    task: Annotated[str, POSITIONAL] = option(..., "task whose traces are judged", min_length=1)
    what: Literal["grounding", "behaviors", "necessity"] = option(
        "grounding", "what the model is asked about"
    )
    judge: str | None = option(None, "judge of grounding and behaviors, named as a teacher is")
    samples: int = option(8, "answers drawn where one does not give a probability", ge=1)
    limit: int | None = option(
        None, "most traces, those with an answer not counted; all when left out", ge=1
    )
    retry_failed: bool = option(False, "ask again what failed for good before")
    concurrency: int = option(16, "requests at once", ge=1)
    teacher: str = Field(
        default_factory=default_model,
        description="model that answers anew for necessity: a registered model, a folder, or a URL",
    )

    def check(self) -> None:
        """See `Settings.check`."""
        if self.what != "necessity" and not self.judge:
            raise FieldProblem("judge", f"{self.what} needs a model that judges; give its URL")


class EvaluateSettings(ServerSettings, HomeSettings, ZoomSettings):
    """What `vigorl evaluate` and the deployments `evaluate-model/*` take."""

    command = "evaluate"
    model: Annotated[str, POSITIONAL] = option(
        ..., "a registered model, a trained model's name or id, a folder, or a URL", min_length=1
    )
    benchmark: Annotated[str, POSITIONAL] = option(
        ..., "task whose questions are asked", min_length=1
    )
    split: str | None = option(None, "its split; test, or else validation, when left out")
    limit: int | None = option(None, "most questions; all when left out", ge=1)
    against: str | None = option(
        None, "a second model, asked the same, to compare question by question"
    )
    control: Literal["blank", "shuffled", "noise", "elsewhere", "gold"] | None = option(
        None,
        "in place of the images, grey ones (blank) or another question's (shuffled); in place of "
        "the crops only, noise, another region (elsewhere) or the asked object's (gold)",
    )
    temperature: float = option(0.0, "0 is greedy; the paper's tables are at 0.5", ge=0)
    top_p: float = option(1.0, "nucleus of the sampling", gt=0, le=1)
    samples: int = option(1, "answers to each question, above temperature 0", ge=1)
    pass_at: int | None = option(
        None,
        "measure how hard training questions are for the model: that many answers to each, at "
        "temperature 1 and of the split train where no other is given",
        ge=2,
    )
    prefixes: int | None = option(
        None,
        "with pass_at, once whole answers were measured: that many answers behind each of so many "
        "prefixes of a question's trees (the view prefix_starts)",
        ge=1,
    )
    rerank: str | None = option(
        None,
        "process reward model that chooses among a question's samples (`vigorl train prm`), "
        "beside voting",
    )
    response_style: Annotated[ResponseStyle | None, Flag(former=("form",))] = option(
        None, "response style asked for; the one the model was taught when left out"
    )
    prompt: str | None = option(None, "prompt file, in place of a response style's own")
    min_thoughts: int | None = option(None, "steps that a prompt demands; 3, or 1 to zoom", ge=1)
    seed: int = option(0, "seed of the sampling and of shuffled images", ge=0)
    served: str | None = option(None, "model to ask a server for; its first when left out")
    concurrency: int = option(64, "requests at once", ge=1)

    @model_validator(mode="before")
    @classmethod
    def _difficulty(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Fill in what `pass_at` stands for."""
        if (count := values.get("pass_at")) is None:
            return values
        chosen = {"temperature": 1.0, "split": "train"}
        chosen |= {name: values[name] for name in chosen if values.get(name)}
        given = values.get("samples") or 1
        return {**values, **chosen, "samples": count if given == 1 else given}

    def check(self) -> None:
        """See `Settings.check`."""
        super().check()
        if self.pass_at not in (None, self.samples):
            raise Problem("pass_at and samples: give one of them")
        if self.prefixes and (self.pass_at is None or self.against or self.control):
            raise FieldProblem("prefixes", "give pass_at as well, and neither against nor control")
        if self.rerank and (self.samples == 1 or self.prefixes or self.control):
            raise FieldProblem("rerank", "give several samples, and neither prefixes nor control")
        if self.samples > 1 and self.temperature == 0:
            raise FieldProblem(
                "samples", "at temperature 0 all are the same; give a temperature as well"
            )
        if self.response_style not in (None, ResponseStyle.ZOOM) and self.prompt:
            raise Problem("response_style and prompt: give one of them")


class GallerySettings(HomeSettings):
    """What `vigorl gallery` takes."""

    command = "gallery"
    out: Path = option(Path("gallery"), "folder to write the pages into")
    sql: str | None = option(None, "a statement that yields the trace_id of what to show")
    dropped_by: str | None = option(
        None, "show what this filter dropped, and what its reasons name"
    )
    limit: int = option(500, "most traces, where no --sql is given", ge=1)
    timeout: float = option(600.0, "seconds the statement may take", gt=0)

    def check(self) -> None:
        """See `Settings.check`."""
        if self.sql and self.dropped_by:
            raise Problem("--sql and --dropped-by: give one of them")


class LintSettings(Settings):
    """What `vigorl lint-reward` takes."""

    command = "lint-reward"
    reward: Annotated[str, POSITIONAL] = option("grounded", "a built-in reward, or module:function")
    space: str = option("qwen3-vl", "coordinates that completions are written in")
    seed: int = option(0, "seed of what is drawn at random")
    one_block: bool = option(False, "write all thoughts in one think block")
    messages: bool = option(False, "give completions as chat messages")
    zoom: bool = option(False, "give dialogues that zoom, as to the built-in rewards for those")


class AskSettings(ServerSettings, ZoomSettings):
    """What `vigorl ask` takes."""

    command = "ask"
    model: Annotated[str, POSITIONAL] = option(
        ..., "a registered model, a checkpoint folder, or a URL", min_length=1
    )
    words: Annotated[tuple[str, ...], Flag(positional=True, metavar="IMAGE... QUESTION")] = option(
        ..., "images, then the question"
    )
    choice: tuple[str, ...] = option((), "an answer to choose from; repeatable")
    n: int = option(1, "answers to sample", ge=1)
    seed: int = option(0, "seed of the sampling", ge=0)
    temperature: float | None = option(None, "0 for one answer, 1 for several, when left out", ge=0)
    out: Path = option(Path("ask.png"), "image with the points drawn")
    served: Annotated[str | None, Flag(names=("--model",))] = option(
        None, "model to ask a server for; its first when left out"
    )
    prompt: str | None = option(None, "prompt file to ask with")
    response_style: Literal["grounded", "zoom"] | None = option(
        None, "grounded, or zoom: each step may look closer; what it was taught when left out"
    )


class ServeSettings(HomeSettings):
    """What `vigorl serve` takes; a build's own server (`vllm:MODEL`) has the defaults."""

    command = "serve"
    model: Annotated[str, POSITIONAL] = option(
        ..., "checkpoint folder, or a model's name on a hub", min_length=1
    )
    extra: Annotated[tuple[str, ...], Flag(positional=True, metavar="[-- FLAGS]")] = option(
        (), "more flags for vLLM"
    )
    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 for all")
    port: int | None = option(8000, "port to listen on", ge=1, le=65535)
    name: str | None = option(
        None, "name to serve it under; the weights' hash is in it when left out", min_length=1
    )
    tensor_parallel: int = option(1, "GPUs that share one copy of the model", ge=1)
    data_parallel: int = option(1, "copies of the model", ge=1)
    ray: bool = option(False, "serve on the Ray cluster that RAY_ADDRESS names, or is here")
    replicas: int = option(1, "servers on the cluster, each with its own GPUs", ge=1)
    context: int | None = option(
        None, "most tokens of prompt and answer; what fits when left out", ge=1
    )
    images: int = option(8, "most images in one prompt", ge=1)
    min_pixels: int | None = option(None, "fewest pixels an image is resized to", ge=1)
    max_pixels: int | None = option(None, "most pixels an image is resized to", ge=1)
    seed: int = option(0, "seed of requests that have none", ge=0)
    cpu: bool = option(False, "this vLLM is a build for CPUs")
    timeout: float = option(1800.0, "seconds it may take to start", gt=0)

    def check(self) -> None:
        """See `Settings.check`."""
        if self.replicas > 1 and not self.ray:
            raise FieldProblem("replicas", "several servers are started with --ray")


class TrainSettings(HomeSettings):
    """What every kind of training takes."""

    kind: ClassVar[str] = ""
    recipe: Annotated[str, POSITIONAL] = option(
        ..., "a built-in recipe, or a YAML file", min_length=1
    )
    dataset: str | None = option(None, "dataset version: name@vN, or name for the newest")
    model: str | None = option(
        None, "model to start from: registered, trained, or a folder; or else the recipe's"
    )
    name: str | None = option(
        None,
        "name of the model; the recipe's and a hash when left out",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$",
    )
    override: Annotated[tuple[str, ...], Flag(names=("-o",), metavar="KEY=VALUE")] = option(
        (), "key=value in place of the recipe's; repeatable"
    )


class SftSettings(TrainSettings):
    """What `vigorl train sft` and the deployments `train-sft/*` take."""

    command, kind = "train sft", "sft"

    def check(self) -> None:
        """See `Settings.check`."""
        if not self.dataset:
            example = f"{self.kind} needs a dataset version, such as sat2-sft@v1"
            raise FieldProblem("dataset", example)


class DpoSettings(SftSettings):
    """What `vigorl train dpo` and the deployments `train-dpo/*` take."""

    command, kind = "train dpo", "dpo"
    dataset: str | None = option(
        None, "learn from the trees of its traces: name@vN, or name for the newest"
    )


class PrmSettings(DpoSettings):
    """What `vigorl train prm` and the deployments `train-prm/*` take."""

    command, kind = "train prm", "prm"


class GrpoSettings(TrainSettings):
    """What `vigorl train grpo` and the deployments `train-grpo/*` take."""

    command, kind = "train grpo", "grpo"
    dataset: str | None = option(None, "ask its questions: name@vN, or name for the newest")
    task: str | None = option(None, "ask the questions of a task instead")
    split: str = option("train", "split of the task's questions")
    limit: int | None = option(None, "most questions of the task", ge=1)


class DoctorSettings(HomeSettings):
    """What `vigorl doctor` takes: where to look, and a teacher as `vigorl build` is given it."""

    command = "doctor"
    teacher: str | None = option(None, "also look at this teacher, named as for `vigorl build`")
    model: str | None = option(None, "model that a server is asked for")
    api_key_env: server_options.KeyName = option(
        None, "environment variable of the API key; VIGORL_API_KEY, OPENAI_API_KEY when left out"
    )
    headers: Annotated[
        server_options.Headers, Flag(names=("--server-header",), metavar="NAME=VALUE")
    ] = option((), "header for a server; $VARIABLE in it is filled in; repeatable")
