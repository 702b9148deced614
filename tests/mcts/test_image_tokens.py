"""How many tokens images are, and a server that counts them otherwise."""

from __future__ import annotations

import pytest

from mcts.coordinates import CoordinateSpace
from mcts.teachers.base import Reply, TeacherUnavailable
from mcts.teachers.image_tokens import ImageSize, SizeCheck, image_tokens

SPACE = CoordinateSpace.qwen25_vl(min_pixels=4 * 28 * 28, max_pixels=1280 * 28 * 28)
WIDE = ImageSize(1120, 840)
"""Of 40 x 30 patches."""


def test_an_image_is_as_many_tokens_as_its_resized_form_has_patches() -> None:
    assert image_tokens(SPACE, [WIDE]) == 1200
    assert image_tokens(SPACE, [WIDE, ImageSize(28, 28)]) == 1200 + 4, "at least so many"
    assert image_tokens(SPACE, [WIDE], max_pixels=300 * 28 * 28) == 300
    assert image_tokens(SPACE, [WIDE], max_pixels=2 * 28 * 28) <= 2, "less than the usual least"
    assert image_tokens(SPACE, [ImageSize(28 * 200, 28)]) == 200
    assert image_tokens(SPACE, [ImageSize(28 * 201, 28)]) == 1, "too narrow for the model"
    assert image_tokens(SPACE, []) == 0


def test_where_the_coordinates_say_nothing_of_patches_the_usual_ones_count() -> None:
    for space in (None, CoordinateSpace.original()):
        assert image_tokens(space, [ImageSize(57, 29)]) == 3 * 2


class Check:
    """A check of one server, and what it reported."""

    def __init__(self, space: CoordinateSpace | None = SPACE) -> None:
        self.reported: list[str] = []
        self.check = SizeCheck(space, "http://gpu", self.reported.append)

    def compare(
        self, prompt: int, *sizes: ImageSize, text: int = 30, cached: int | None = None
    ) -> None:
        self.check.compare(Reply((), prompt, cached, 1, 0.1), sizes or (WIDE,), text)


def test_a_count_that_fits_is_compared_once() -> None:
    check = Check()
    assert check.check.is_due
    check.compare(1230)
    assert not check.check.is_due and not check.reported
    check.compare(300)  # not looked at any more


def test_only_where_points_depend_on_the_size_it_is_compared() -> None:
    for space in (None, CoordinateSpace.qwen3_vl()):
        check = Check(space)
        assert not check.check.is_due
        check.compare(300)
        assert not check.reported


def test_a_text_alone_and_a_count_that_hardly_covers_it_say_nothing() -> None:
    check = Check()
    check.check.compare(Reply((), 300, None, 1, 0.1), (), 30)
    check.compare(30 + 74)  # a third of 30, and 64
    assert check.check.is_due
    with pytest.raises(TeacherUnavailable):
        check.compare(30 + 75)
    assert not check.check.is_due


def test_a_server_that_shrinks_images_is_refused_with_the_limit_that_fits() -> None:
    with pytest.raises(TeacherUnavailable) as refused:
        Check().compare(330)
    said = str(refused.value)
    assert refused.value.permanent
    assert "http://gpu resizes images: its prompt has 330 tokens" in said
    assert "the image alone (1120x840) would have 1200" in said
    fitting = int(said.partition("give --max-pixels ")[2].partition(",")[0])
    assert image_tokens(SPACE, [WIDE], fitting) == pytest.approx(300, rel=0.15)
    with pytest.raises(TeacherUnavailable, match="the 2 images alone would have 2400"):
        Check().compare(900, WIDE, WIDE)
    with pytest.raises(TeacherUnavailable, match=f"give --max-pixels {256 * 28 * 28}, which fits"):
        Check().compare(30 + 252)
    Check().compare(1100, cached=100)  # tokens from a cache are tokens


@pytest.mark.parametrize(
    "tokens",
    [256, 512, 576, 768, 1024, 1280, 1536, 2048, 2560, 4096, 5120, 8192, 12544, 16384],
)
def test_a_usual_limit_is_told_from_its_count(tokens: int) -> None:
    space, large = CoordinateSpace.qwen25_vl(max_pixels=2**15 * 784), ImageSize(28 * 175, 28 * 175)
    seen = image_tokens(space, [large], tokens * 784)
    with pytest.raises(TeacherUnavailable, match=f"give --max-pixels {tokens * 784}, which fits"):
        Check(space).compare(seen, large, text=0)


def test_where_no_usual_limit_fits_the_count_itself_is_the_limit() -> None:
    with pytest.raises(TeacherUnavailable, match=f"give --max-pixels {100 * 784}, which fits"):
        Check().compare(200 + 30, WIDE, WIDE)


def test_a_server_that_enlarges_images_is_told_and_goes_on() -> None:
    check = Check()
    check.compare(1230 + 300 + 74)
    assert not check.reported, "it may be the text"
    check = Check()
    check.compare(1230 + 300 + 75)
    (said,) = check.reported
    assert "its prompts have 1605 tokens" in said and "should have 1200" in said
