"""The commands that are about a model rather than the warehouse: `vigorl serve`, `vigorl ask`.

`flows.cli.app` puts them among the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.build import Home, MaxPixels, MinPixels, Model, Space, Timeout


def serve(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A checkpoint folder, or a name on a hub.")
    ],
    extra: Annotated[
        list[str] | None, typer.Argument(metavar="[-- FLAGS]", help="More flags for vLLM.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="Name to serve it under; by default it names the weights.")
    ] = None,
    tensor_parallel: Annotated[
        int, typer.Option(help="GPUs that share one copy of the model.")
    ] = 1,
    data_parallel: Annotated[int, typer.Option(help="Copies of the model.")] = 1,
    context: Annotated[
        int | None, typer.Option(help="Most tokens of prompt and answer. Default: what fits.")
    ] = None,
    images: Annotated[int, typer.Option(help="Most pictures in one prompt.")] = 8,
    min_pixels: Annotated[
        int | None, typer.Option(help="Fewest pixels a picture is resized to.")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Most pixels a picture is resized to.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of requests that have none.")] = 0,
    cpu: Annotated[bool, typer.Option("--cpu", help="This vLLM is a build for CPUs.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds it may take to start.")] = 1800.0,
    home: Home = None,
) -> None:
    """Start a vLLM server for tree search, print its URL, stop it on Ctrl-C."""
    values = dict(locals())
    from flows.settings import ServeSettings
    from flows.teachers import vllm as serving

    serving.serve(ServeSettings.checked(**values | {"extra": tuple(extra or ())}))


def ask(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="nano, nano-base, a checkpoint folder, or a URL.")
    ],
    words: Annotated[
        list[str], typer.Argument(metavar="IMAGE... QUESTION", help="Pictures, then the question.")
    ],
    choice: Annotated[
        list[str] | None, typer.Option(help="An answer to choose from; may be repeated.")
    ] = None,
    n: Annotated[int, typer.Option(help="Answers to sample.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    temperature: Annotated[
        float | None, typer.Option(help="Default: 0 for one answer, 1 for several.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Picture with the points drawn.")] = Path("ask.png"),
    served: Model = None,
    space: Space = None,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt file to ask with.")] = None,
    timeout: Timeout = 600.0,
) -> None:
    """Ask a model about pictures: its steps with their points, its answer, and a drawing."""
    from flows.stages import ask as asking

    values: dict[str, Any] = {"model": served, "space": space, "prompt": prompt}
    values |= {"min_pixels": min_pixels, "max_pixels": max_pixels, "timeout": timeout}
    values |= {"samples": n, "seed": seed, "temperature": temperature}
    asking.ask(model, words, choice or (), out, values)
