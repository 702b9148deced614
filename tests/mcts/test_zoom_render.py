"""Which region a lens shows, and its pixels: where the dot is, what is drawn, what is kept."""

from __future__ import annotations

import io

import pytest
from PIL import Image as PILImage

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Box, Image, Observation, Point, Question, Step, ZoomCall
from mcts.image_io import decode
from mcts.teachers.image_tokens import ImageSize, image_tokens
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import VISUAL_SEARCH_LENS, WEB_LENS, Lens, default_lens
from mcts.zoom.observe import observation_text, observe, same_region
from mcts.zoom.render import _DecodedImages, crop_id, render_crop

WIDE = Image("wide", 2000, 1000)
SPACE = CoordinateSpace.qwen3_vl()
LENS = Lens(100, 400)


def png(size: tuple[int, int], colour: str = "black") -> bytes:
    data = io.BytesIO()
    PILImage.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


# ---- lenses -------------------------------------------------------------------------------------


def test_the_lenses_of_the_paper_stay_what_they_are() -> None:
    """Crops of trees that are stored were cut with them."""
    assert Lens(182, 672, marked=False, share=False) == VISUAL_SEARCH_LENS
    assert Lens(100, 512, marked=True, share=False) == WEB_LENS


@pytest.mark.parametrize(
    ("sizes", "half_width"),
    [([(600, 300)], 100), ([(300, 600)], 100), ([(60, 30), (120, 240)], 40), ([(4000, 100)], 182)],
)
def test_a_task_without_a_lens_shows_a_ninth_of_a_small_image(
    sizes: list[tuple[int, int]], half_width: float
) -> None:
    images = tuple(Image(str(i), *size) for i, size in enumerate(sizes))
    lens = default_lens(Question("t", "?", images, AnswerKind.TEXT, answers=("a",)))
    assert (lens.half_width, lens.shown_side) == (pytest.approx(half_width), 672)


@pytest.mark.parametrize("wrong", [(0, 10), (-1, 10), (10, 0)])
def test_a_lens_that_shows_nothing_is_refused(wrong: tuple[float, int]) -> None:
    Lens(0.01, 1)
    with pytest.raises(ValueError, match="half width above 0 and shows at least one pixel"):
        Lens(*wrong)


@pytest.mark.parametrize(
    ("box", "crop", "shown"),
    [
        (Box(300, 200, 500, 300), Box(300, 200, 500, 300), (400, 200)),
        (Box(400, 250, 400, 250), Box(386, 236, 414, 264), (400, 400)),  # 28 pixels at least
        (
            Box(200, 240, 600, 260),
            Box(200, 225, 600, 275),
            (400, 50),
        ),  # eight times as long at most
        (Box(390, 50, 410, 450), Box(375, 50, 425, 450), (50, 400)),
    ],
)
def test_what_is_shown_of_a_box_is_neither_tiny_nor_a_line(
    box: Box, crop: Box, shown: tuple[int, int]
) -> None:
    assert LENS.region(Point(400, 250), WIDE, box) == (crop, shown)


def test_a_call_in_a_crop_shows_half_of_its_longer_side() -> None:
    within = Box(200, 100, 600, 200)
    assert LENS.region(Point(400, 500), WIDE, within=within)[0] == Box(300, 400, 500, 600)
    assert LENS.region(Point(400, 500, 1), WIDE)[0] == Box(300, 400, 500, 600, 1)
    assert Lens(0.05, 9, share=True).region(Point(400, 500), WIDE)[0] == Box(300, 400, 500, 600)


@pytest.mark.parametrize("lens", [Lens(1 / 6, 672, share=True), Lens(182, 336), Lens(500, 112)])
@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (5, 1000), (1, 199), (1, 1), (40, 3)])
def test_what_is_shown_of_a_line_is_no_line_that_a_processor_refuses(
    lens: Lens, size: tuple[int, int]
) -> None:
    image = Image("line", *size)
    crop, shown = lens.region(Point(size[0] * 0.9, size[1] * 0.9), image)
    width, height = crop.x2 - crop.x1, crop.y2 - crop.y1
    assert min(crop.x1, crop.y1) >= 0 and crop.x2 <= size[0] and crop.y2 <= size[1]
    assert crop.contains(Point(size[0] * 0.9, size[1] * 0.9))
    for kind in (CoordinateSpace.qwen25_vl(), CoordinateSpace.qwen3_vl()):
        assert image_tokens(kind, [ImageSize(*shown)]) > 0
    scale = lens.shown_side / max(width, height)
    assert max(abs(shown[0] - width * scale), abs(shown[1] - height * scale)) <= 1, "not squeezed"
    data = render_crop(png(size), Observation(crop, *shown))
    assert decode(data).size == shown


# ---- what a call shows --------------------------------------------------------------------------


FRAME = Frame(SPACE, (WIDE, Image("other", 2000, 1000)))


def seen(*places: tuple[float, float, int], zoom: ZoomConfig) -> list[Observation]:
    steps: tuple[Step, ...] = ()
    for x, y, image in places:
        call = ZoomCall(Point(x, y, image), image)
        found = observe(FRAME, steps, call, zoom)
        steps = (*steps, Step("It.", (), call, found))
    return [step.observation for step in steps if step.observation]


@pytest.mark.parametrize(
    ("second", "again"),
    [
        ((500, 500, 0), True),
        ((519.9, 500, 0), True),  # within a hundredth of the longer side
        ((520.1, 500, 0), False),
        ((500, 519.9, 0), True),
        ((500, 520.1, 0), False),
        ((514.2, 514.2, 0), False),
        ((500, 500, 1), False),  # another image
    ],
)
def test_a_region_counts_as_shown_where_it_is_near(
    second: tuple[float, float, int], again: bool
) -> None:
    found = seen((500, 500, 0), second, zoom=ZoomConfig(LENS))[1]
    assert (found.problem == "shown_already") is again
    assert (found.crop is None) is again


@pytest.mark.parametrize(("side", "again"), [(200, True), (250, True), (251, False), (159, False)])
def test_a_region_of_another_size_is_something_new(side: float, again: bool) -> None:
    first = ZoomCall(Point(500, 500), 0, Box(400, 400, 600, 600))
    zoom = ZoomConfig(LENS)
    steps = (Step("It.", (), first, observe(FRAME, (), first, zoom)),)
    half = side / 2
    asked = Box(500 - half, 500 - half, 500 + half, 500 + half)
    found = observe(FRAME, steps, ZoomCall(Point(500, 500), 0, asked), zoom)
    assert (found.problem == "shown_already") is again


@pytest.mark.parametrize(
    ("first", "second", "again"),
    [
        (Box(1000, 1000, 1060, 1060), Box(1070, 1000, 1130, 1060), False),
        (Box(1000, 1000, 1060, 1060), Box(1006, 1000, 1066, 1060), True),
        (Box(800, 975, 1200, 1025), Box(975, 800, 1025, 1200), False),
        (Box(800, 800, 1200, 1200), Box(800, 900, 1200, 1100), False),
    ],
)
def test_a_region_was_shown_where_hardly_anything_of_it_is_new(
    first: Box, second: Box, again: bool
) -> None:
    frame = Frame(SPACE, (Image("large", 7680, 4320),))
    assert same_region(frame, first, second) is again
    assert same_region(frame, second, first) is again


def test_a_box_is_never_marked_and_a_point_where_the_lens_says_so() -> None:
    zoom = ZoomConfig(Lens(100, 400, marked=True))
    point = observe(FRAME, (), ZoomCall(Point(500, 500)), zoom)
    box = observe(FRAME, (), ZoomCall(Point(500, 500), 0, Box(400, 400, 600, 600)), zoom)
    assert (point.marked, box.marked) == (True, False)
    assert observation_text(point) == (
        "<observation>Image 3: the region around that place, enlarged. "
        "A red dot marks that place.</observation>"
    )
    assert observation_text(Observation(Box(0, 0, 9, 9), 9, 9)) == (
        "<observation>Here is the region around that place, enlarged.</observation>"
    )


def test_the_last_crop_is_the_one_that_uses_up_calls_turns_or_tokens() -> None:
    places = [(300 * i, 500, 0) for i in range(1, 5)]
    last = [o.last for o in seen(*places, zoom=ZoomConfig(LENS, max_calls=3))]
    assert last == [False, False, True, True]
    one = image_tokens(SPACE, [ImageSize(400, 400)])
    for tokens, expected in (
        (1, [True, True]), (2 * one - 1, [True, True]), (2 * one, [False, True]),
        (3 * one - 1, [False, True]), (3 * one, [False, False]),
    ):  # fmt: skip
        zoom = ZoomConfig(LENS, crop_tokens=tokens)
        assert [o.last for o in seen(*places[:2], zoom=zoom)] == expected
    outside = [(9000, 9000, 0)] * 3
    zoom = ZoomConfig(LENS, max_calls=2, max_turns=3)
    assert [o.last for o in seen(*outside, zoom=zoom)] == [False, False, True]
    assert all((o.width, o.height, o.view) == (0, 0, None) for o in seen(*outside, zoom=zoom))


# ---- pixels -------------------------------------------------------------------------------------


def test_the_dot_is_where_the_call_pointed_and_of_one_size() -> None:
    crop = Observation(Box(100, 50, 300, 150), 400, 200, marked=True)
    shown = decode(render_crop(png((400, 200)), crop, ZoomCall(Point(250, 75))))
    x, y = 300, 50  # twice as large
    assert shown.size == (400, 200)

    def near(at: tuple[int, int], colour: tuple[int, int, int]) -> bool:
        return all(abs(a - b) < 60 for a, b in zip(shown.getpixel(at), colour, strict=True))

    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        assert near((x + 5 * dx, y + 5 * dy), (255, 0, 0))
        assert near((x + 8 * dx, y + 8 * dy), (255, 255, 255))
        assert near((x + 11 * dx, y + 11 * dy), (0, 0, 0))
    plain = decode(render_crop(png((400, 200)), crop))
    assert plain.getpixel((x, y)) == (0, 0, 0), "without a call there is nothing to mark"


def test_thin_colours_of_a_crop_stay_what_they_are() -> None:
    """As a JPEG of high quality keeps them, without colours at half the resolution."""
    stripes = PILImage.new("RGB", (64, 64))
    for x in range(0, 64, 2):
        stripes.paste("red", (x, 0, x + 1, 64))
        stripes.paste("blue", (x + 1, 0, x + 2, 64))
    data = io.BytesIO()
    stripes.save(data, "PNG")
    shown = decode(render_crop(data.getvalue(), Observation(Box(0, 0, 64, 64), 64, 64)))
    pairs = zip(shown.tobytes(), stripes.tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) < 16
    grain = PILImage.merge("RGB", [PILImage.effect_noise((64, 64), 60) for _ in range(3)])
    data = io.BytesIO()
    grain.save(data, "PNG")
    shown = decode(render_crop(data.getvalue(), Observation(Box(0, 0, 64, 64), 64, 64)))
    pairs = zip(shown.tobytes(), grain.tobytes(), strict=True)
    lost = sum(abs(a - b) for a, b in pairs) / (3 * 64 * 64)
    assert 0 < lost < 5, lost


def test_a_crop_is_named_by_all_that_decides_its_pixels() -> None:
    crop, call = Observation(Box(1, 2, 3, 4), 30, 40, marked=True), ZoomCall(Point(2, 3))
    names = [
        crop_id("a", crop, call), crop_id("b", crop, call), crop_id("a", crop),
        crop_id("a", crop, ZoomCall(Point(2, 2))),
        *(crop_id("a", Observation(Box(*box), 30, 40)) for box in
          ((0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 9, 4), (1, 2, 3, 9))),
        crop_id("a", Observation(Box(1, 2, 3, 4), 31, 40)),
        crop_id("a", Observation(Box(1, 2, 3, 4), 30, 41)),
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    unmarked = Observation(Box(1, 2, 3, 4), 30, 40)
    assert crop_id("a", unmarked, call) == crop_id("a", unmarked) == crop_id("a", crop)
    assert crop_id("a", crop, call) == crop_id("a", crop, ZoomCall(Point(2, 3), 4))


def test_decoded_images_are_kept_while_there_is_room_the_newest_used_longest() -> None:
    first, second, third = (png((10, 10), colour) for colour in ("red", "green", "blue"))
    images = _DecodedImages(2 * 300)
    kept = images.get(first)
    other = images.get(second)
    assert images.get(first) is kept and images.get(second) is other
    images.get(first)
    images.get(third)  # the second has to go
    assert images.get(first) is kept
    assert images.get(second) is not other
    alone = _DecodedImages(299)
    assert alone.get(first) is not alone.get(first)
    alone.get(first)
    large = _DecodedImages(300)
    for _ in range(3):  # room is given back
        assert large.get(first) is large.get(first)
        assert large.get(second) is large.get(second)
