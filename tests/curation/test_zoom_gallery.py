"""What a step looked at closer is shown beside it, and outlined on the image."""

import io

import pytest
from PIL import Image as PILImage

from curation.render.gallery import GalleryTrace, GalleryTree, write_gallery
from curation.render.marks import regions_of, told_of
from curation.render.trace_card import draw_trace
from curation.traces.linearize import linearize
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens
from mcts.zoom.render import render_crop
from tests.curation.test_gallery import BLUE, data, encoded, question_about
from tests.support.zoom_trees import grow_looks, look

RED = encoded("red", (1000, 1000))
QUESTION = question_about(RED)
OUTSIDE = {("1", "rollout", 0): look(500, 5000, "Out of it.", image=2)}


def tree(changes=(), **config):
    return grow_looks(changes, question=QUESTION, **config)


def shown(tmp_path, grown, images=(RED,)):
    traces = [GalleryTrace(QUESTION, trace, (), images) for trace in linearize(grown)]
    write_gallery(tmp_path, traces, [GalleryTree(grown, images)])
    return data(tmp_path, "traces-00000"), data(tmp_path, "tree-t")["nodes"]


def test_a_page_shows_each_crop_beside_its_step_by_the_number_the_model_calls_it(tmp_path):
    traces, nodes = shown(tmp_path, tree())
    looks = [[step["look"] for step in trace["steps"]] for trace in traces]
    assert [[look and look["number"] for look in of] for of in looks] == [
        [2, None], [2, 3, None], [2, 3, 4, None],
    ]  # fmt: skip
    assert looks[1][0]["crop"] | {"x1": 750, "y1": 750, "x2": 850, "y2": 850} == looks[1][0]["crop"]
    assert looks[1][0]["told"] == "Image 2: the region around that place, enlarged."
    assert looks[1][0]["dot"] is None
    assert nodes[1]["step"]["look"]["number"] == 2
    assert nodes[2]["rollouts"][0]["steps"][0]["look"]["number"] == 3


def test_a_page_says_why_a_call_showed_nothing(tmp_path):
    traces, _ = shown(tmp_path, tree(OUTSIDE))
    failed = traces[1]["steps"][1]["look"]
    assert failed["told"] == "That place lies outside the image, so nothing is shown."
    assert (failed["crop"], failed["number"]) == (None, None)


def test_a_marked_crop_has_its_dot_where_the_model_saw_it(tmp_path):
    zoom = ZoomConfig(Lens(50, 100, marked=True))
    traces, _ = shown(tmp_path, tree(zoom=zoom))
    assert traces[0]["steps"][0]["look"]["dot"] == [100, 100]


def test_no_crop_is_stored_beside_the_image_it_is_cut_from(tmp_path):
    shown(tmp_path, tree())
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_a_region_is_drawn_in_the_colour_of_its_attempt():
    (*_, corrected) = linearize(tree())
    regions = regions_of(corrected)
    assert [(r.label, r.step, r.role) for r in regions] == [
        ("2", "1", "wrong"), ("3", "2", "turn"), ("4", "3", "step"),
    ]  # fmt: skip


def test_a_card_shows_the_crop_that_the_model_saw():
    """A picture that is green in the region only: its crop is the card's largest green part."""
    picture = PILImage.new("RGB", (1000, 1000), "red")
    picture.paste("lime", (750, 750, 850, 850))
    file = io.BytesIO()
    picture.save(file, "PNG")
    (_, trace, _) = linearize(tree())

    def green(card):
        image = PILImage.open(io.BytesIO(card)).convert("RGB")
        return sum(n for n, (r, g, b) in image.getcolors(2**24) if g > 200 and r < 60 and b < 60)

    with_crops = green(draw_trace(trace, QUESTION, [file.getvalue()]))
    assert with_crops > 2 * 200 * 200 > 4 * green(draw_trace(trace, QUESTION, []))
    seen = trace.steps[0]
    crop = PILImage.open(io.BytesIO(render_crop(file.getvalue(), seen.observation, seen.call)))
    assert crop.size == (100, 100) and crop.getpixel((50, 50))[1] > 200


@pytest.mark.parametrize("images", [(), (b"no image",), (BLUE,)])
def test_a_card_of_a_dialogue_is_drawn_whatever_became_of_its_image(images):
    for trace in linearize(tree(OUTSIDE)):
        assert draw_trace(trace, QUESTION, images)


def test_an_observation_is_told_without_its_tags():
    (trace, *_) = linearize(tree(OUTSIDE))
    assert "<" not in told_of(trace.steps[0].observation)
