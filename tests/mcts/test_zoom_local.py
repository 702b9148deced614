"""A search that looks closer with the embedded teacher: what its engine runs, and runs once."""

import random
from dataclasses import dataclass, replace

from mcts.prompts import load_prompt
from mcts.teachers.local.teacher import LocalTeacher
from tests.mcts.test_zoom_search import look, say
from tests.support.zoom_searches import ZOOM, ZOOMING, as_bytes, encoded, searched
from vigorl_nano import TEACHER


@dataclass
class Looking:
    """The embedded teacher, which never learnt to call: what it writes is replaced by calls."""

    teacher: LocalTeacher
    shown: list

    @property
    def identity(self):
        return self.teacher.identity

    async def open(self):
        await self.teacher.open()

    async def complete(self, request, images):
        self.shown += request.image_ids
        reply = await self.teacher.complete(request, images)
        if request.continues:
            return reply
        made = []
        for i, completion in enumerate(reply.completions):
            rng, text = random.Random(request.seed + i), say()
            if rng.random() < 0.8:
                text = look(rng.randrange(1000), rng.randrange(1000))
            made.append(replace(completion, text=text, finish_reason="stop"))
        return replace(reply, completions=tuple(made))


async def test_a_crop_is_encoded_once_a_tree_and_later_turns_run_only_what_is_new(tmp_path):
    engine, shown = LocalTeacher(TEACHER, batch=16, threads=1), []
    prompt = load_prompt("nano")
    config = replace(
        ZOOMING, prompt=prompt.name, prompt_digest=prompt.digest, simulations=3, step_tokens=8
    )
    tree = await searched(Looking(engine, shown), tmp_path, config, [encoded(196, 196)])
    encodings = engine.images_encoded
    await engine.close()
    lines = [node.steps() + r.steps for node in tree.nodes for r in node.rollouts]
    looks = [[s for s in line if s.observation and s.observation.crop] for line in lines]
    assert max(map(len, looks)) == ZOOM.max_calls
    assert encodings == len(set(shown)) < len(shown) / 2
    usage, ledger = tree.usage, engine.ledger
    assert usage.image_tokens == ledger.image_tokens == 49 * len(shown)
    assert ledger.cached_tokens > 0.5 * usage.prompt_tokens, "behind a crop, too"
    again = await searched(engine, tmp_path, config, [encoded(196, 196)], mode="replay")
    assert as_bytes(again) == as_bytes(tree)
