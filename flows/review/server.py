"""Serves the review pages to a browser on this machine, and stores what is said on them.

    serve(pages, reviews, port=8765, ready=print)      # until Ctrl-C

Everything lies below a path that is drawn anew each time, so that no other page in the same browser
can read or post here without knowing it.
"""

from __future__ import annotations

import secrets
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Protocol

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field

from curation.filters.review import ReviewVerdict
from curation.render.review import PAGE
from flows.settings_base import Problem
from warehouse.tables.schema import Row

HOST = "127.0.0.1"


class GivenReview(BaseModel):
    """What the page posts."""

    model_config = ConfigDict(extra="forbid")
    review_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    trace_id: str
    step: int | None
    verdict: ReviewVerdict
    comment: Annotated[str, Field(max_length=4000)]


class Reviews(Protocol):
    """Where reviews are kept."""

    def stored(self) -> list[Row]:
        """Return the reviewer's newest: trace_id, step, verdict and comment."""
        ...

    def has(self, trace_id: str, step: int | None) -> bool:
        """Return whether a trace, and step of it, is among those to be reviewed."""
        ...

    def store(self, given: GivenReview) -> None:
        """Store a review; one of the same id is stored once."""
        ...

    def failed(self, error: Exception) -> str | None:
        """Return why a review could not be stored, in a sentence; None for a defect of ours."""
        ...


def create_app(pages: Path, reviews: Reviews, key: str) -> FastAPI:
    """Return the application; all its addresses begin with `/key/`."""
    app = FastAPI(openapi_url=None)

    @app.get(f"/{key}/")
    def first() -> RedirectResponse:
        return RedirectResponse(PAGE)

    @app.get(f"/{key}/reviews")
    def stored() -> list[Row]:
        return reviews.stored()

    # Plain functions run in threads: a commit of one review keeps no page waiting.
    @app.post(f"/{key}/reviews", status_code=204)
    def store(given: GivenReview) -> None:
        if not reviews.has(given.trace_id, given.step):
            raise HTTPException(404, "there is no such trace or step on these pages")
        try:
            reviews.store(given)
        except Exception as error:
            sentence = reviews.failed(error)
            if sentence is None:
                raise
            raise HTTPException(503, sentence) from None

    app.mount(f"/{key}", StaticFiles(directory=pages))
    return app


def serve(pages: Path, reviews: Reviews, *, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, which end in a `KeyboardInterrupt`.

    Args:
        port: of this machine; 0 for any that is free.
        ready: called with the address once it answers there.

    Raises:
        Problem: the port is taken.
    """
    key = secrets.token_urlsafe(12)
    config = uvicorn.Config(create_app(pages, reviews, key), log_level="warning", access_log=False)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            reason = error.strerror or error
            raise Problem(f"--port: {port} of this machine cannot be had: {reason}") from None
        listening.listen(128)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
        ready(f"http://{HOST}:{listening.getsockname()[1]}/{key}/")
        uvicorn.Server(config).run(sockets=[listening])
