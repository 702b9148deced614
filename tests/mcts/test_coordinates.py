"""The coordinate contract: there and back within half a model unit, and nothing clamped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts.coordinates import CoordinateSpace, Frame, SpaceKind, smart_resize
from mcts.data import Image, Point

SPACES = [
    CoordinateSpace.qwen25_vl(),
    CoordinateSpace.qwen25_vl(min_pixels=256 * 28 * 28, max_pixels=1280 * 28 * 28),
    CoordinateSpace.qwen2_vl(),
    CoordinateSpace.qwen3_vl(),
    CoordinateSpace.original(),
]
sizes = st.tuples(st.integers(28, 5000), st.integers(28, 5000))
shares = st.floats(0, 1, allow_nan=False)


@pytest.mark.parametrize("space", SPACES, ids=lambda s: f"{s.kind}-{s.max_pixels}")
@given(size=sizes, across=shares, down=shares)
def test_a_point_comes_back_within_half_a_model_unit(space, size, across, down):
    image = Image("a", *size)
    frame = Frame(space, (image,))
    point = Point(across * image.width, down * image.height)
    back = frame.to_point(*frame.to_model(point))
    width, height = space.size(image)
    rounding = 0.0011  # points are kept to a thousandth of a pixel
    assert abs(back.x - point.x) <= 0.5 * image.width / width + rounding
    assert abs(back.y - point.y) <= 0.5 * image.height / height + rounding
    assert frame.inside(back)


@pytest.mark.parametrize("space", SPACES, ids=lambda s: f"{s.kind}-{s.max_pixels}")
@given(size=sizes, share=shares)
def test_what_a_model_wrote_is_written_again_the_same(space, size, share):
    image = Image("a", *size)
    frame = Frame(space, (image,))
    width, height = space.size(image)
    x, y = round(share * width), round((1 - share) * height)
    assert frame.to_model(frame.to_point(x, y)) == (x, y)


def test_a_point_outside_stays_outside():
    frame = Frame(CoordinateSpace.qwen3_vl(), (Image("a", 320, 240),))
    point = frame.to_point(1200, -5)
    assert (point.x, point.y) == (384.0, -1.2)
    assert not frame.inside(point)
    assert not frame.inside(Point(1, 1, image=1))
    assert frame.inside(Point(320, 240)) and not frame.inside(Point(320.01, 240))


def test_the_same_numbers_mean_different_places_in_different_spaces():
    image = Image("a", 1920, 1080)
    places = {
        space.kind: Frame(space, (image,)).to_point(500, 500)
        for space in (CoordinateSpace.qwen25_vl(max_pixels=1003520), *SPACES[3:])
    }
    assert places[SpaceKind.NORMALIZED_1000] == Point(960.0, 540.0)
    assert places[SpaceKind.ABSOLUTE_ORIGINAL] == Point(500.0, 500.0)
    resized = places[SpaceKind.ABSOLUTE_RESIZED]
    assert resized.x == pytest.approx(500 * 1920 / 1316, abs=0.01)
    assert resized.y == pytest.approx(500 * 1080 / 728, abs=0.01)


@given(size=sizes, factor=st.sampled_from([28, 32]))
def test_smart_resize_is_what_the_processors_do(size, factor):
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as theirs

    height, width = size
    for least, most in ((3136, 12845056), (65536, 1003520)):
        expected = theirs.smart_resize(height, width, factor, least, most)
        assert smart_resize(height, width, factor, least, most) == expected


def test_a_space_that_cannot_convert_is_refused():
    with pytest.raises(ValueError, match="needs min_pixels"):
        CoordinateSpace(SpaceKind.ABSOLUTE_RESIZED)
    with pytest.raises(ValueError, match="too narrow"):
        smart_resize(10, 4000, 28, 3136, 12845056)
