"""Searches whose steps look closer, about pictures made here: asked of any teacher, or replayed."""

import hashlib
import io
import json
import random
from dataclasses import replace

from PIL import Image as PILImage

from curation.grading.grade import grade
from mcts.config import search_id
from mcts.data import Image, Question
from mcts.image_io import upright_size
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.tree import flatten
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens
from tests.support.scripted import CONFIG, QUESTION

ZOOM = ZoomConfig(Lens(20, 112), max_calls=2, max_turns=4, role="tool")
ZOOMING = replace(CONFIG, prompt="zoom", zoom=ZOOM, max_depth=3)
"""Shallow, so that answers are forced."""


def encoded(width=120, height=90, orientation=1, kind="PNG", seed=0):
    """Return an image's bytes: noise, so that no crop looks like another."""
    noise = random.Random(seed).randbytes(width * height * 3)
    picture = PILImage.frombytes("RGB", (width, height), noise)
    exif = picture.getexif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    picture.save(out, kind, exif=exif)
    return out.getvalue()


def asked_about(*files: bytes) -> tuple[Question, dict[str, bytes]]:
    """Return a question about these images, and them by id."""
    images = {hashlib.sha256(data).hexdigest(): data for data in files}
    known = tuple(Image(name, *upright_size(data)) for name, data in images.items())
    return replace(QUESTION, images=known), images


async def searched(teacher, folder, config=ZOOMING, files=None, *, mode="resume"):
    """Search, and return the tree; a replay needs the teacher's identity alone, and no image."""
    question, images = asked_about(*(files or [encoded()]))
    with Journal(folder) as journal:
        if mode == "replay":
            journaled = JournaledTeacher(None, journal, mode, identity=teacher.identity)
            images = {}
        else:
            await teacher.open()
            journaled = JournaledTeacher(teacher, journal)
        name = search_id(question, config, 0, teacher.identity)
        policy = TeacherPolicy(question, config, name, journaled, images)
        return await search(question, config, policy, grade, name)


def as_bytes(tree) -> bytes:
    """Write a tree and what it cost, so that equal bytes mean an equal search."""
    rows, usage = flatten(tree), tree.usage
    spent = [usage.requests, usage.prompt_tokens, usage.image_tokens, usage.completion_tokens]
    return json.dumps([rows.nodes, rows.rollouts, tree.errors, spent]).encode()
