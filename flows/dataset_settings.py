"""What `vigorl dataset publish` and `export` take.

settings = ExportSettings.checked(dataset="sat2-sft@v1", out=Path("export"), to="verl")
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from flows.settings import HomeSettings
from flows.settings_base import POSITIONAL, FieldProblem, Flag, Problem, option
from mcts.data import ResponseStyle

_STYLE = (
    "rewrite each trace: grounded (those that can also be written ungrounded), ungrounded, "
    "answer_only or zoom"
)


class PublishSettings(HomeSettings):
    """What `vigorl dataset publish` takes."""

    command = "dataset publish"
    name: Annotated[str, POSITIONAL] = option(..., "name; the version number is given")
    sql: str = option(..., "a SELECT that yields trace_id")
    timeout: float = option(600.0, "seconds the statement may take", gt=0)
    response_style: Annotated[ResponseStyle | None, Flag(former=("variant",))] = option(
        None, _STYLE
    )


class ExportSettings(HomeSettings):
    """What `vigorl dataset export` takes."""

    command = "dataset export"
    dataset: Annotated[str, POSITIONAL] = option(..., "name@vN, or name for the newest")
    out: Path | None = option(None, "folder to write into; may be left out with --push-to")
    to: str = option("trl", "format: trl, llama-factory, grpo, verl, easyr1, dpo or prm")
    response_style: Annotated[ResponseStyle | None, Flag(former=("variant",))] = option(
        None, _STYLE
    )
    space: str | None = option(
        None, "coordinates of the model to train; the teacher's when left out"
    )
    min_pixels: int | None = option(
        None, "fewest pixels that model's processor resizes an image to; with --space", ge=1
    )
    max_pixels: int | None = option(
        None, "most pixels that model's processor resizes an image to; with --space", ge=1
    )
    prompt: str | None = option(
        None, "prompt file; the response style's, or the task's, when left out"
    )
    files: str = option("parquet", "parquet with the images inside, or jsonl with them beside it")
    zoom_tool: Literal["search_coordinate", "image_zoom_in_tool"] | None = option(
        None, "tool that dialogues call, by a point or by a box; the search's when left out"
    )
    observation_role: Literal["user", "tool"] | None = option(
        None, "turn that a dialogue's crops come in; what format and coordinates allow, if left out"
    )
    push_to: str | None = option(
        None, "also put it on a hub, into the repository owner/name (HF_TOKEN, HF_ENDPOINT)"
    )
    public: bool = option(False, "let everybody read a repository that is new")

    def check(self) -> None:
        """See `Settings.check`."""
        if self.out is None and self.push_to is None:
            raise Problem("--out: name a folder to write into, or a repository with --push-to")
        for field in ("min_pixels", "max_pixels"):
            if getattr(self, field) and not self.space:
                raise FieldProblem(field, "give --space too: it is that model's processor's limit")
