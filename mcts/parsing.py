"""Text <-> steps: parse a model's text into `Step`s in original pixels, and render steps as text.

    parsed = parse(response_text, frame)      # never raises; errors are in parsed.problems
    text = render(parsed.steps, parsed.answer, frame)

The grammar is the field's: `<think>…(x, y).</think>`, `<answer>…</answer>`, and for zoom
`<tool_call>{"name": "search_coordinate", "arguments": {"coordinate": [x, y]}}</tool_call>` followed
by an `<observation>` that is not the model's. A coordinate is `(x, y)`, followed by ` in image 2`
when it is not in the first image. A step ends with the sentence of its point, so one think block
with three such sentences and three think blocks parse into the same three steps, and
parse(render(trace)) == trace either way.

Only places are converted: `mcts.places` decides which pairs of numbers are. All other words of a
text, `(1,200) dollars` among them, are the same in the response, in a step, in the next prompt and
in an export. A step's `points` say which of its pairs are places wherever it is rendered.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mcts.coordinates import DECIMALS, Frame, SpaceKind, format_number
from mcts.data import Point, Step, ZoomCall
from mcts.places.decide import UNREAD, Place, Unread, is_share, places
from mcts.places.dialects import other_dialects, read_dialect
from mcts.places.pairs import LARGEST, find_pairs, says_image
from mcts.places.sentences import says_again, sentence_ends, sentences
from mcts.tool_calls.calls import read_call, write_call
from mcts.tool_calls.views import Views

__all__ = [
    "THOUGHT_BREAK", "ParseProblem", "ParsedResponse", "answer_points", "blocks", "fold_remark",
    "move_points", "parse", "points_in", "points_outside", "render", "replace_places", "revisits",
    "sentences", "sole_point", "split_steps",
]  # fmt: skip

_NUMBERS = re.compile(r"\d+")
_IN_IMAGE = re.compile(r"\s+in\s+image\s+\d{1,3}\b", re.IGNORECASE)

# One object as JSON writes it, alone in a list or in a block of code too.
_OBJECT = re.compile(
    r"(?:```(?:json)?)?\s*(?:\{[^{}]*\}|\[\s*\{[^{}]*\}\s*\])\s*(?:```)?", re.IGNORECASE
)

# Tags as models write them, with attributes or in capitals; in quotes of its own a tag is a word.
_TAG = re.compile(
    r"(?P<quote>[\"'`“‘])?<\s*(?P<closing>/\s*)?(?P<name>think|answer|tool_call|observation)"
    r"(?P<rest>\s[^<>]{0,200})?\s*>(?(quote)(?P<unquote>[\"'`”’])?)",
    re.IGNORECASE,
)
THOUGHT_BREAK = "\n\u200b\n"
"""Parts the thoughts of one step that were written apart: what a crop shows, and what comes next. A
line of a zero-width space, which shows as an empty one and which no model writes by itself."""

# What a server leaves at the end of a turn is no word of the model's.
_TURN_END = re.compile(r"(?:\s*(?:<\|(?:im_end|endoftext|eot_id|end|eom_id)\|>|</s>|<eos>))+\s*")


@dataclass(frozen=True, slots=True)
class ParseProblem:
    """One error in a text; a value, so that a malformed response is kept."""

    kind: str
    """A word to group by in queries, such as `point_outside_image`."""
    detail: str
    """The offending text, shortened."""


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """A model's text as steps and an answer."""

    steps: tuple[Step, ...]
    answer: str | None
    """The final answer, coordinates in original pixels; None if none was given."""
    problems: tuple[ParseProblem, ...] = ()


def parse(
    text: str, frame: Frame, *, inside: str | None = None, behind_crop: bool = False
) -> ParsedResponse:
    """Parse a model's `text`, with coordinates in `frame`, into steps in original pixels.

    Args:
        text: a response, or several joined; at most one answer is read.
        frame: the model's coordinate space and the question's images.
        inside: the tag a partial turn had already opened (`answer` when the request ended in
            `<answer>`), or None.
        behind_crop: the text follows a crop, as any does behind a call; see `THOUGHT_BREAK`.
    """
    problems: list[ParseProblem] = []
    steps: list[Step] = []
    thoughts: list[str] = []
    telling, answer = 0, None  # thoughts without a place that directly follow a crop

    def close_thoughts() -> None:
        written = _joined(thoughts[:telling], thoughts[telling:])
        converted, points = _in_pixels(written, frame, problems)
        steps.extend(split_steps(converted, points))
        thoughts.clear()

    for tag, _, start, end, closed, _ in blocks(text, inside):
        content = text[start:end].strip()
        if tag is None and _TURN_END.fullmatch(content):
            continue
        if tag is not None and not closed:
            problems.append(ParseProblem(f"unclosed_{tag}", content[-80:]))
        if tag == "observation" or not (tag or content):
            continue
        if answer is not None:
            problems.append(ParseProblem("text_after_answer", content[:80]))
        elif tag == "answer":
            if not closed:
                continue  # an answer that was cut off is no answer
            answer = _answer_in_pixels(content, frame, problems) if frame.answers_point else content
            if not content:
                problems.append(ParseProblem("empty_answer", ""))
                answer = None
        elif tag == "tool_call":
            close_thoughts()
            behind_crop, telling = True, 0
            call = _zoom_call(content, Views(frame), problems)
            if call is not None and steps:
                steps[-1] = replace(steps[-1], call=call)
            elif call is not None:
                problems.append(ParseProblem("call_without_thought", content[:80]))
        else:
            if tag is None:
                problems.append(ParseProblem("text_outside_tags", content[:80]))
            if content:
                thoughts.append(content)
                if not _places(read_dialect(content, frame.space.dialect), frame):
                    telling += behind_crop and telling == len(thoughts) - 1
                    problems.append(ParseProblem("thought_without_point", content[:80]))
            else:
                problems.append(ParseProblem("empty_think", ""))
    close_thoughts()
    return ParsedResponse(tuple(steps), answer, tuple(problems))


def _joined(telling: Sequence[str], others: Sequence[str]) -> str:
    return THOUGHT_BREAK.join((*telling, *(["\n".join(others)] if others else [])))


def render(
    steps: Sequence[Step],
    answer: str | None,
    frame: Frame,
    *,
    one_block: bool = False,
    before: Sequence[Step] = (),
) -> str:
    """Render steps and answer as text, with coordinates in `frame`.

    Args:
        one_block: one think block per turn instead of one per thought.
        before: the steps that these follow, whose crops a call may name.
    """
    lines: list[str] = []
    turn: list[str] = []
    seen = list(before)

    def close_turn() -> None:
        if one_block and turn:
            lines.append(f"<think>{chr(10).join(turn)}</think>")
        else:
            lines.extend(f"<think>{thought}</think>" for thought in turn)
        turn.clear()

    for step in steps:
        if step.thought or step.call is None:
            turn += _from_pixels(step, frame).split(THOUGHT_BREAK)
        if step.call is not None:
            close_turn()
            call = write_call(step.call, Views.of(frame, seen))
            lines.append(f"<tool_call>{call}</tool_call>")
        seen.append(step)
    close_turn()
    if answer is not None:
        text = _answer_from_pixels(answer, frame) if frame.answers_point else answer
        lines.append(f"<answer>{text}</answer>")
    return "\n".join(lines)


def revisits(thought: str) -> bool:
    """Return whether a thought announces a second look: it verifies, or turns back."""
    return says_again(thought)


def fold_remark(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Merge a closing remark, a last step without a point, into the step before it."""
    if len(steps) < 2 or steps[-1].point is not None:
        return tuple(steps)
    *before, last, remark = steps
    return (*before, replace(last, thought=f"{last.thought}\n{remark.thought}"))


def points_in(text: str) -> tuple[Point, ...]:
    """Return the points that a text in original pixels cites, in reading order.

    For texts that were never parsed; a step's own are `Step.points`.
    """
    return tuple(_point(place) for place in places(text))


def answer_points(answer: str, n_images: int | None = None) -> tuple[Point, ...]:
    """Return the points of an answer that is a place: there every pair of numbers is one.

    Args:
        n_images: how many images the question has; None if it is not known.
    """
    return tuple(Point(p.x, p.y, max(p.image, 0)) for p in find_pairs(answer, n_images))


def sole_point(answer: str, n_images: int | None = None) -> Point | None:
    """Return the point of an answer that is one place and holds no other number, but its image's;
    None of any other answer, which may say two places in two notations."""
    pairs = find_pairs(answer, n_images)
    if len(pairs) != 1:
        return None
    (pair,) = pairs
    numbers = _NUMBERS.findall(answer[: pair.start] + " " + answer[pair.end :])
    image = pair.image + 1
    if any(int(number) != image for number in numbers) or (numbers and not says_image(answer)):
        return None
    return Point(pair.x, pair.y, max(pair.image, 0))


def _point(place: Place) -> Point:
    return Point(place.x, place.y, place.image)


def move_points(
    thought: str, move: Callable[[Point], Point], points: Sequence[Point] | None = None
) -> str:
    """Move every point that a thought in original pixels cites, within the point's image.

    Args:
        points: the points it was parsed into; read from the thought when left out.
    """

    def moved(place: Place) -> str:
        point = move(_point(place))
        return _format_pair(point.x, point.y)

    return _replaced(thought, places(thought, points), moved)


def replace_places(text: str, replacement: Callable[[Place], str]) -> str:
    """Replace every place that a text in original pixels cites by `replacement(place)`.

    The words that name the place's image go with it.
    """
    kept, at = [], 0
    for place in places(text):
        kept += [text[at : place.start], replacement(place)]
        at = _end_of_image(text, place)
    return "".join([*kept, text[at:]])


def _end_of_image(text: str, place: Place) -> int:
    suffix = _IN_IMAGE.match(text, place.end)
    return suffix.end() if suffix else place.end


def _replaced(text: str, found: Sequence[Place], written: Callable[[Place], str]) -> str:
    """Return a text with other words for its places."""
    kept, at = [], 0
    for place in found:
        kept += [text[at : place.start], written(place)]
        at = place.end
    return "".join([*kept, text[at:]])


def points_outside(points: Sequence[Point], frame: Frame) -> tuple[Point, ...]:
    """Return the `points` that lie outside their image."""
    return tuple(point for point in points if not frame.inside(point))


class Block(NamedTuple):
    """A part of a text, between two tags."""

    tag: str | None
    """None for bare text."""
    begin: int
    """Where its tag begins."""
    start: int
    """Where its content begins, and ends."""
    end: int
    closed: bool
    behind: int
    """Where its closing tag ends, or else its content."""


def blocks(text: str, inside: str | None = None) -> Iterator[Block]:
    """Split a text at its tags.

    A tag that opens inside another block ends that block unclosed, unless the very next tag closes
    it: then the opening one is a word, as is a tag in quotes or one that closes nothing.
    """
    tags = [match for match in _TAG.finditer(text) if not (match["quote"] and match["unquote"])]
    tag, begin, start = inside, 0, 0
    for i, match in enumerate(tags):
        closing, name = bool(match["closing"]), match["name"].lower()
        if tag is not None and name != tag:
            follower = tags[i + 1] if i + 1 < len(tags) else None
            closes = follower and follower["closing"] and follower["name"].lower() == tag
            if closing or closes:
                continue
        end, closed = _tag_start(match), closing and tag is not None
        yield Block(tag, begin, start, end, closed, match.end() if closed else end)
        tag, begin, start = (None if closing else name), end, match.end()
        if match["unquote"]:
            start -= 1
    if tag is not None or text[start:].strip():
        yield Block(tag, begin, start, len(text), False, len(text))


def _tag_start(match: re.Match[str]) -> int:
    return match.start() + len(match["quote"] or "")


def split_steps(text: str, points: Sequence[Point] | None = None) -> list[Step]:
    """Split thoughts (original pixels) into steps, each ending with the sentence of its point.

    Text after the last point is a closing remark: a last step without a point.

    Args:
        points: the points the text was parsed into; read from it when left out.
    """
    steps: list[Step] = []
    found = places(text, points)
    ends = sentence_ends(text) if found else []
    start = cited = 0
    while cited < len(found):
        at = bisect.bisect_left(ends, found[cited].end)
        end = ends[at] if at < len(ends) else len(text)
        first = cited
        while cited < len(found) and found[cited].start < end:
            cited += 1
        steps.append(Step(text[start:end].strip(), tuple(map(_point, found[first:cited]))))
        start = end
    rest = text[start:].strip()
    if rest:
        steps.append(Step(rest))
    return steps


def _places(text: str, frame: Frame, unread: list[Unread] | None = None) -> list[Place]:
    """Return the places in a model's text, and in `unread` what looks like one and is none."""
    masked = []
    for start, end, why in other_dialects(text):
        masked.append((start, end))
        if unread is not None:
            unread.append(why)

    def outside(x: float, y: float, image: int) -> bool:
        known = 0 <= image < len(frame.images)
        return not known or not frame.inside(frame.to_point(x, y, image))

    return places(
        text,
        n_images=len(frame.images),
        whole_units=frame.space.counts_units,
        outside=outside,
        masked=masked,
        unread=unread,
    )


def _in_pixels(
    text: str, frame: Frame, problems: list[ParseProblem]
) -> tuple[str, tuple[Point, ...]]:
    """Convert a text's places from `frame` to original pixels; record errors in `problems`."""
    text = read_dialect(text, frame.space.dialect)
    unread: list[Unread] = []
    found, points = [], []
    for place in _places(text, frame, unread):
        if not 0 <= place.image < len(frame.images):
            problems.append(ParseProblem("no_such_image", _shown(text, place)))
            continue
        point = frame.to_point(place.x, place.y, place.image)
        if not frame.inside(point):
            problems.append(ParseProblem("point_outside_image", _shown(text, place)))
        if max(abs(point.x), abs(point.y)) < LARGEST:
            found.append(place)
            points.append(point)
    problems.extend(ParseProblem(one.kind, one.text[:80]) for one in unread)
    pairs = iter(points)

    def written(_: Place) -> str:
        point = next(pairs)
        return _format_pair(point.x, point.y)

    return _replaced(text, found, written), tuple(points)


def _shown(text: str, place: Place) -> str:
    return text[place.start : _end_of_image(text, place)]


def _from_pixels(step: Step, frame: Frame) -> str:
    """Convert a step's places from original pixels to `frame`."""
    if frame.space.kind is SpaceKind.ABSOLUTE_ORIGINAL:
        return step.thought

    def written(place: Place) -> str:
        x, y = frame.to_model(_point(place))
        return _format_pair(x, y, frame.space.decimals)

    found = places(step.thought, step.points)
    there = [place for place in found if 0 <= place.image < len(frame.images)]
    return _replaced(step.thought, there, written)


def _answer_in_pixels(text: str, frame: Frame, problems: list[ParseProblem]) -> str:
    """Convert an answer that is a place: there every pair is one, but for shares."""
    read = read_dialect(text, frame.space.dialect)
    text = _without_object(read, frame) if read != text else text
    problems.extend(ParseProblem(why.kind, why.text[:80]) for _, _, why in other_dialects(text))
    found = []
    for pair in _answer_pairs(text, frame):
        if not 0 <= pair.image < len(frame.images):
            problems.append(ParseProblem("no_such_image", _shown(text, pair)))
        elif frame.space.counts_units and is_share(pair.x, pair.y):
            problems.append(ParseProblem(f"{UNREAD}shares", _shown(text, pair)))
        else:
            point = frame.to_point(pair.x, pair.y, pair.image)
            if not frame.inside(point):
                problems.append(ParseProblem("point_outside_image", _shown(text, pair)))
            if max(abs(point.x), abs(point.y)) < LARGEST:
                found.append(pair)

    def written(place: Place) -> str:
        point = frame.to_point(place.x, place.y, place.image)
        return _format_pair(point.x, point.y)

    return _replaced(text, found, written)


def _without_object(text: str, frame: Frame) -> str:
    """Return the place alone where an answer is one object with one place that was read in it.

    `{"point_2d": (412, 230), "label": "cup"}` would be neither JSON nor `(x, y)`.
    """
    pairs = _answer_pairs(text, frame)
    if len(pairs) != 1 or pairs[0].image < 0 or not _OBJECT.fullmatch(text):
        return text
    image = f" in image {pairs[0].image + 1}" if pairs[0].image else ""
    return text[pairs[0].start : pairs[0].end] + image


def _answer_from_pixels(text: str, frame: Frame) -> str:
    """Convert an answer that is a place from original pixels to `frame`.

    Shares that were left as they stood are left again: they lie on no whole unit.
    """
    if frame.space.kind is SpaceKind.ABSOLUTE_ORIGINAL:
        return text

    def converted(place: Place) -> bool:
        if not 0 <= place.image < len(frame.images):
            return False
        point = _point(place)
        in_units = not frame.space.counts_units or not is_share(place.x, place.y)
        return in_units or frame.to_point(*frame.to_model(point), place.image) == point

    def written(place: Place) -> str:
        x, y = frame.to_model(_point(place))
        return _format_pair(x, y, frame.space.decimals)

    return _replaced(text, [p for p in _answer_pairs(text, frame) if converted(p)], written)


def _answer_pairs(text: str, frame: Frame) -> list[Place]:
    pairs = find_pairs(text, len(frame.images))
    return [Place(p.start, p.end, p.x, p.y, max(p.image, -1)) for p in pairs]


def _format_pair(x: float, y: float, decimals: int = DECIMALS) -> str:
    return f"({format_number(x, decimals)}, {format_number(y, decimals)})"


def _zoom_call(content: str, views: Views, problems: list[ParseProblem]) -> ZoomCall | None:
    """Parse a tool call; None, with the reason in `problems`, if it can't be read."""
    kinds: list[str] = []
    call = read_call(content, views, kinds)
    problems.extend(ParseProblem(kind, content[:80]) for kind in kinds)
    if call.point is None:
        problems.append(ParseProblem("bad_tool_call", content[:80]))
        return None
    if not views.inside(call.point, call.view):
        problems.append(ParseProblem("point_outside_image", content[:80]))
    return call
