"""Typed, checked parameters of what can be run, the same for a command and its deployment.

    settings = BuildSettings(task="sat2", simulations=20)     # ValueError names a bad field

A bad value is found here, before anything is scheduled or written.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Problem(Exception):
    """Something the user can put right, in one sentence; commands exit with status 2."""


class Settings(BaseModel):
    """What all of them are: unchangeable, and without fields that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """The settings, or a `Problem` that names the first bad field."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the settings"
            raise Problem(f"{field}: {first['msg']} (it was {first['input']!r})") from None


class BuildSettings(Settings):
    """What `vigorl build` and the deployments `build-traces/*` take."""

    task: str = Field("sat2", min_length=1, description="task whose questions are searched")
    split: str = Field("train", description="split of its questions")
    limit: int | None = Field(None, ge=1, description="most questions; all when left out")
    teacher: str = Field(
        "nano",
        description="nano, nano-base, a checkpoint folder, vllm:MODEL, or the URL of an "
        "OpenAI-compatible server, or several of one model with commas between",
    )
    model: str | None = Field(None, description="model to ask a server for; its first by default")
    space: str | None = Field(
        None, description="coordinates the teacher speaks: qwen2-vl, qwen2.5-vl, qwen3-vl, original"
    )
    min_pixels: int | None = Field(
        None, ge=1, description="fewest pixels the server's processor resizes an image to"
    )
    max_pixels: int | None = Field(
        None, ge=1, description="most pixels the server's processor resizes an image to"
    )
    revision: str | None = Field(
        None, description="revision of a server's weights; part of every search's name"
    )
    timeout: float = Field(600.0, gt=0, description="seconds a server may take for one request")
    prompt: str | None = Field(
        None, description="prompt file; by default the teacher's own, or the task's"
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
    tree_seconds: float | None = Field(None, gt=0, description="seconds that stop a tree")
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
    regrade: bool = Field(False, description="say what today's grader would score otherwise")
    dry_run: bool = Field(False, description="search a few questions and predict the cost of all")
    pilot: int = Field(4, ge=1, description="questions a dry run searches")
    price_in: float | None = Field(None, ge=0, description="money a million prompt tokens cost")
    price_out: float | None = Field(None, ge=0, description="money a million written tokens cost")
    metrics: int | None = Field(
        None, ge=1, le=65535, description="port for Prometheus to read the progress from"
    )
    home: str | None = Field(None, description="warehouse folder or s3:// URL; $VIGORL_HOME")

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """The settings, or a `Problem`: a bad field, or fields that contradict each other."""
        settings = super().checked(**values)
        if settings.samples and settings.strategy == "mcts":
            raise Problem("samples: they are for the strategies best-of-n and linear")
        if settings.replay + settings.regrade + settings.dry_run > 1:
            raise Problem("replay, regrade and dry_run: give one of them")
        if (settings.price_in is None) != (settings.price_out is None):
            raise Problem("price_in and price_out: give both, or neither")
        return settings


class CurateSettings(Settings):
    """What `vigorl curate` and the deployments `curate-traces/*` take."""

    task: str = Field("sat2", min_length=1, description="task whose trees are curated")
    publish: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="publish what is kept as this dataset",
    )
    home: str | None = Field(None, description="warehouse folder or s3:// URL; $VIGORL_HOME")


class JudgeSettings(Settings):
    """What `vigorl judge` and the deployments `judge-traces/*` take."""

    task: str = Field("sat2", min_length=1, description="task whose traces are judged")
    what: Literal["grounding", "behaviors", "necessity"] = Field(
        "grounding", description="what the model is asked about"
    )
    judge: str | None = Field(
        None, description="the judge of grounding and behaviors, named as a build's teacher is"
    )
    teacher: str = Field("nano", description="who answers anew for necessity, named likewise")
    model: str | None = Field(None, description="model to ask a server for; its first by default")
    space: str | None = Field(
        None, description="coordinates the teacher speaks; a judge is told none"
    )
    min_pixels: int | None = Field(
        None, ge=1, description="fewest pixels the server's processor resizes an image to"
    )
    max_pixels: int | None = Field(
        None, ge=1, description="most pixels the server's processor resizes an image to"
    )
    samples: int = Field(8, ge=1, description="answers drawn where one does not tell a probability")
    limit: int | None = Field(
        None, ge=1, description="most traces, those with an answer not counted; all when left out"
    )
    retry_failed: bool = Field(False, description="ask again what failed for good before")
    concurrency: int = Field(16, ge=1, description="requests at once")
    timeout: float = Field(600.0, gt=0, description="seconds a server may take for one request")
    home: str | None = Field(None, description="warehouse folder or s3:// URL; $VIGORL_HOME")

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """The settings, or a `Problem`: a bad field, or nobody to judge."""
        settings = super().checked(**values)
        if settings.what != "necessity" and not settings.judge:
            raise Problem(f"judge: who is to judge {settings.what}? Give a server's URL")
        return settings


class ServeSettings(Settings):
    """What `vigorl serve` takes; a build's own server (`vllm:MODEL`) has the defaults."""

    model: str = Field(min_length=1, description="checkpoint folder, or a model's name on a hub")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int | None = Field(None, ge=1, le=65535, description="port; a free one when left out")
    name: str | None = Field(
        None, min_length=1, description="name to serve it under; by default it names the weights"
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one copy of the model")
    data_parallel: int = Field(1, ge=1, description="copies of the model")
    context: int | None = Field(
        None, ge=1, description="most tokens of prompt and answer; what fits when left out"
    )
    images: int = Field(8, ge=1, description="most pictures in one prompt")
    min_pixels: int | None = Field(None, ge=1, description="fewest pixels a picture is resized to")
    max_pixels: int | None = Field(None, ge=1, description="most pixels a picture is resized to")
    seed: int = Field(0, ge=0, description="seed of requests that have none")
    cpu: bool = Field(False, description="this vLLM is a build for CPUs")
    timeout: float = Field(1800.0, gt=0, description="seconds it may take to start")
    extra: tuple[str, ...] = Field((), description="more arguments for vLLM")
    home: str | None = Field(None, description="warehouse whose logs/ gets the log; $VIGORL_HOME")


class EvaluateSettings(Settings):
    """What `vigorl evaluate` and the deployments `evaluate-model/*` take."""

    model: str = Field(
        "nano", description="nano, nano-base, a trained model's name or id, a folder, or a URL"
    )
    benchmark: str = Field("sat2", min_length=1, description="task whose questions are asked")
    split: str | None = Field(None, description="its split; test, or else validation")
    limit: int | None = Field(None, ge=1, description="most questions; all when left out")
    against: str | None = Field(
        None, description="a second model, asked the same, to compare question by question"
    )
    control: Literal["blank", "shuffled"] | None = Field(
        None, description="grey pictures, or those of another question, in place of its own"
    )
    temperature: float = Field(0.0, ge=0, description="0 is greedy; the paper's tables are at 0.5")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of the sampling")
    samples: int = Field(1, ge=1, description="answers to each question, above temperature 0")
    form: Literal["grounded", "ungrounded", "answers"] | None = Field(
        None, description="the form of answer that is asked for; as the model was taught by default"
    )
    prompt: str | None = Field(None, description="prompt file, in place of a form's own")
    min_thoughts: int = Field(3, ge=1, description="steps that the prompt demands at least")
    seed: int = Field(0, ge=0, description="seed of the sampling and of shuffled pictures")
    served: str | None = Field(None, description="model to ask a server for; its first by default")
    space: str | None = Field(None, description="coordinates a served model speaks")
    min_pixels: int | None = Field(None, ge=1, description="fewest pixels a server resizes to")
    max_pixels: int | None = Field(None, ge=1, description="most pixels a server resizes to")
    concurrency: int = Field(64, ge=1, description="requests at once")
    timeout: float = Field(600.0, gt=0, description="seconds a server may take for one request")
    home: str | None = Field(None, description="warehouse folder or s3:// URL; $VIGORL_HOME")

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """The settings, or a `Problem`: a bad field, or fields that contradict each other."""
        settings = super().checked(**values)
        if settings.samples > 1 and settings.temperature == 0:
            raise Problem("samples: at temperature 0 all are the same; give a temperature as well")
        if settings.form and settings.prompt:
            raise Problem("form and prompt: give one of them")
        return settings
