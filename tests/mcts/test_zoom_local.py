"""A search that looks closer with the embedded model: what its engine runs, and runs once."""

from dataclasses import replace

from mcts.prompts import load_prompt
from mcts.teachers.local.teacher import LocalTeacher
from mcts.zoom.crops import crop_of
from mcts.zoom.recorded import recorded_zoom
from tests.support.zoom_searches import ZOOMING, as_bytes, encoded, searched
from vigorl_nano import ZOOM


async def test_a_crop_is_encoded_once_a_tree_and_later_turns_run_only_what_is_new(tmp_path):
    engine, prompt, zoom = LocalTeacher(ZOOM, batch=16, threads=1), "nano-zoom", recorded_zoom(ZOOM)
    config = replace(
        ZOOMING, prompt=prompt, prompt_digest=load_prompt(prompt).digest, zoom=zoom,
        max_depth=8, simulations=4, step_tokens=64,
    )  # fmt: skip
    tree = await searched(engine, tmp_path, config, [encoded(196, 196)])
    encodings = engine.images_encoded
    await engine.close()
    steps = [n.step for n in tree.nodes if n.step and not n.discarded]
    steps += [step for rollout in tree.rollouts for step in rollout.steps]
    looks = [s for s in steps if s.observation and s.observation.crop]
    crops = {crop_of(tree.question, step) for step in looks}
    assert len(crops) > 3 and encodings == 1 + len(crops), "the picture, and each crop"
    usage, ledger = tree.usage, engine.ledger
    assert usage.image_tokens == ledger.image_tokens > 49 * ledger.requests, "49 an image"
    assert ledger.cached_tokens > 0.5 * usage.prompt_tokens, "behind a crop, too"
    again = await searched(engine, tmp_path, config, [encoded(196, 196)], mode="replay")
    assert as_bytes(again) == as_bytes(tree)
