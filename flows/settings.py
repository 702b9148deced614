"""Typed, checked parameters of what can be run, the same for a command and its deployment.

    settings = BuildSettings(task="sat2", simulations=20)     # ValueError names a bad field

A bad value is found here, before anything is scheduled or written.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Problem(Exception):
    """Something the user can put right, in one sentence; commands exit with status 2."""


class _Settings(BaseModel):
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


class BuildSettings(_Settings):
    """What `vigorl build` and the deployments `build-traces/*` take."""

    task: str = Field("sat2", min_length=1, description="task whose questions are searched")
    split: str = Field("train", description="split of its questions")
    limit: int | None = Field(None, ge=1, description="most questions; all when left out")
    teacher: str = Field(
        "nano", description="nano, a checkpoint folder, or the URL of an OpenAI-compatible server"
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
    prompt: str | None = Field(None, description="prompt file; by default the teacher's own")
    simulations: int = Field(8, ge=1, description="simulations a tree")
    children: int = Field(3, ge=1, description="steps sampled at an expansion")
    rollouts: int = Field(2, ge=1, description="answers sampled from each new step")
    max_depth: int = Field(10, ge=1, description="steps after which only an answer may follow")
    exploration: float = Field(2.0, ge=0, description="the constant c of UCT")
    wave: int = Field(1, ge=1, description="simulations at once within a tree")
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
    home: str | None = Field(None, description="warehouse folder or s3:// URL; $VIGORL_HOME")


class CurateSettings(_Settings):
    """What `vigorl curate` and the deployments `curate-traces/*` take."""

    task: str = Field("sat2", min_length=1, description="task whose trees are curated")
    publish: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="publish what is kept as this dataset",
    )
    home: str | None = Field(None, description="warehouse folder or s3:// URL; $VIGORL_HOME")
