"""A text's own words are the same wherever it goes: response, step, row, prompt, export.

Texts of many scripts with places, numbers that look like places, and other dialects go through
parse -> the warehouse's rows -> render -> parse. The long run is
`pytest -m slow tests/mcts/test_texts.py`.
"""

import random
import re

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcts.coordinates import Frame
from mcts.data import Image, Trace
from mcts.parsing import parse, render
from mcts.teachers.checkpoints import named_space
from warehouse.tables.rows import step_from, trace_rows
from warehouse.tables.schema import TABLES

IMAGES = (Image("a", 641, 483), Image("b", 1000, 500))
STORED = ("trace_id", "step", "thought", "points", "call", "observation")
FRAMES = [
    Frame(named_space(name), images)
    for name in ("qwen3-vl", "qwen2.5-vl", "normalized-1", "original")
    for images in (IMAGES[:1], IMAGES)
]

SCHEMA = pa.schema([field for field in TABLES["steps"].schema if field.name in STORED])
numbers = st.one_of(st.integers(0, 999), st.integers(0, 3000), st.integers(-5, 12))
decimals = st.floats(0, 1000).map(lambda value: f"{value:.2f}")
shares = st.floats(0, 1).map(lambda value: f"{value:.2f}")
WORDS = """
the red box stands left of a blue ball at near reads interval range axis runs from price $ €
value score is was point coordinates again dollars % cm years in image 2 second first
红色 方块 在 区间 元 第二张图 位于 赤い 箱 は に あります المربع عند लाल डिब्बा पर กล่อง อยู่ที่
상자 красный ящик e.g. approx. 3.5 f g( max “quoted” 'so' <b> </b> & \\ {x} [7] **bold**
""".split()  # noqa: SIM905
ENDS = ["", " ", ". ", "! ", "? ", "。", "！", "؟ ", "। ", "\n", ", ", "，", "; ", ": ", "… "]


BRACKETS = ["()", "（）", "【】", "[]", "()", "()"]
COMMAS = [", ", ",", "，", "、", "، ", " , ", ", "]


def pair(x, y, brackets, comma):
    return f"{brackets[0]}{x}{comma}{y}{brackets[1]}"


pairs = st.builds(
    pair,
    numbers | decimals | shares,
    numbers | decimals | shares,
    st.sampled_from(BRACKETS),
    st.sampled_from(COMMAS),
)
FORMS = [
    "<point>{} {}</point>",
    '<point x="{}" y="{}" alt="cup">cup</point>', '{{"point_2d": [{}, {}]}}',
    '"bbox_2d": [{}, {}, {}, {}]', "<|box_start|>({},{}),({},{})<|box_end|>", "({},{}),({},{})",
    "x={}, y={}", "({},{}00)", "(1,{}00) dollars", "[{}, {})", "({}, {}) in the second image",
]  # fmt: skip
others = st.builds(
    lambda form, values: form.format(*values),
    st.sampled_from(FORMS),
    st.lists(numbers, min_size=4, max_size=4),
)
words = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=4)
pieces = st.one_of(words, words, words, pairs, others)
texts = st.lists(st.tuples(pieces, st.sampled_from(ENDS)), min_size=1, max_size=14).map(
    lambda parts: "".join(piece + (end or " ") for piece, end in parts)
)
_PLACE = re.compile(
    r"[(（﹙【〔]\s*[-−－]?[\d.．٫]+\s*[,，、،﹐﹑､]\s*[-−－]?[\d.．٫]+\s*[)）﹚】〕]"
)


def told(text):
    """The words of a text, a pair's numbers replaced; white space between them does not count."""
    return "".join(_PLACE.sub("§", text).split())


def trip(text, frame):
    """The steps that come back from the warehouse's rows."""
    parsed = parse(f"<think>{text}</think>", frame)
    trace = Trace("q", parsed.steps, None, None, "direct")
    _, steps = trace_rows(trace, task="t", text=render(parsed.steps, None, frame))
    table = pa.Table.from_pylist(steps, schema=SCHEMA)
    stored = tuple(map(step_from, table.to_pylist()))
    assert stored == parsed.steps
    return stored


def check(text, frame):
    if re.search(r"<\s*/?\s*(think|answer|tool_call|observation)", text, re.IGNORECASE):
        return
    if not text.strip():
        return
    stored = trip(text, frame)
    # What was read is a pair in brackets; every other word is as it was written, and in its order.
    written = "\n".join(step.thought for step in stored)
    assert told(written) == told(text)
    assert len(_changed(text, written)) <= sum(len(step.points) for step in stored)
    rendered = render(stored, None, frame)
    again = parse(rendered, frame)
    assert [len(step.points) for step in again.steps] == [len(step.points) for step in stored]
    for before, after in zip(stored, again.steps, strict=True):
        assert told(after.thought) == told(before.thought)
        for a, b in zip(before.points, after.points, strict=True):
            assert a.image == b.image
            width, height = frame.space.size(frame.images[a.image])
            half = 0.5 * 10**-frame.space.decimals
            assert abs(a.x - b.x) <= half * IMAGES[a.image].width / width + 0.0011
            assert abs(a.y - b.y) <= half * IMAGES[a.image].height / height + 0.0011
    # From then on nothing changes any more.
    assert render(again.steps, None, frame) == rendered
    assert parse(render(again.steps, None, frame), frame).steps == again.steps


def _changed(text, written):
    """The pairs that are written otherwise now."""
    pairs = zip(_PLACE.findall(text), _PLACE.findall(written), strict=True)
    return [(before, after) for before, after in pairs if before != after]


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(texts, st.sampled_from(FRAMES))
def test_no_word_of_a_text_changes_on_its_way(text, frame):
    check(text, frame)


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.sampled_from(FRAMES))
def test_no_word_of_any_text_changes_on_its_way(text, frame):
    check(text, frame)


def random_text(rng):
    """A text such as the strategies make; quicker, for the long run."""
    if rng.random() < 0.3:
        signs = "()（）[],，、 0123456789.$%.。\n<>-axat" if rng.random() < 0.7 else ""
        picked = (rng.choice(signs) if signs else chr(rng.randrange(32, 0xD7FF)) for _ in range(60))
        return "".join(picked)[: rng.randint(1, 60)]

    def number():
        kind = rng.random()
        if kind < 0.2:
            return f"{rng.random() * rng.choice([1, 1000]):.2f}"
        return str(rng.randint(-5, 12) if kind < 0.3 else rng.randint(0, rng.choice([999, 3000])))

    def piece():
        kind = rng.random()
        if kind < 0.5:
            return rng.choice(WORDS)
        if kind < 0.85:
            return pair(number(), number(), rng.choice(BRACKETS), rng.choice(COMMAS))
        form = rng.choice(FORMS)
        return form.format(*(number() for _ in range(form.count("{}"))))

    return "".join(piece() + (rng.choice(ENDS) or " ") for _ in range(rng.randint(1, 14)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_no_word_of_twenty_five_thousand_texts_changes(seed):
    rng = random.Random(seed)
    for _ in range(25_000):
        check(random_text(rng), rng.choice(FRAMES))
