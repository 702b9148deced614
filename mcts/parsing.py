"""Text <-> steps: parse a model's text into `Step`s in original pixels, and render steps as text.

    parsed = parse(response_text, frame)      # never raises; errors are in parsed.problems
    text = render(parsed.steps, parsed.answer, frame)

The grammar is the field's: `<think>…(x, y).</think>`, `<answer>…</answer>`, and for zoom
`<tool_call>{"name": "search_coordinate", "arguments": {"coordinate": [x, y]}}</tool_call>` followed
by an `<observation>` that is not the model's. A coordinate is `(x, y)`, followed by ` in image 2`
when it is not in the first image. A step ends with the sentence of its point, so one think block
with three such sentences and three think blocks parse into the same three steps, and
parse(render(trace)) == trace either way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from mcts.coordinates import DECIMALS, Frame, SpaceKind
from mcts.data import Point, Step

ZOOM_TOOL = "search_coordinate"

_TAG = re.compile(r"<(/?)(think|answer|tool_call|observation)>")
# Bounded, so that no text makes a number a float cannot hold.
_NUMBER = r"-?\d{1,7}(?:\.\d{1,6})?"
_COORDINATE = re.compile(
    rf"\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)(?:(\s+in\s+image\s+)(\d{{1,3}})\b)?", re.IGNORECASE
)
# Words by which a step announces that it returns to a place on purpose.
_REVISIT = re.compile(
    r"\b(again|check(?:ing|ed|s)?|verif\w+|confirm\w*|double-check\w*|wait|actually|re-?examin\w+|"
    r"look(ing)? back|go(ing)? back|return(ing)? to|seems? off|mistake\w*|correct(ing|ion))\b",
    re.IGNORECASE,
)
# A sentence ends at . ! ? (with closing quotes or brackets) before white space, or at a line end.
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)|\n")


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


def parse(text: str, frame: Frame, *, inside: str | None = None) -> ParsedResponse:
    """Parse a model's `text`, with coordinates in `frame`, into steps in original pixels.

    Args:
        text: a response, or several joined; at most one answer is read.
        frame: the model's coordinate space and the question's images.
        inside: the tag a partial turn had already opened (`answer` when the request ended in
            `<answer>`), or None.
    """
    problems: list[ParseProblem] = []
    steps: list[Step] = []
    thoughts: list[str] = []
    answer: str | None = None

    def close_thoughts() -> None:
        steps.extend(split_steps(_in_pixels("\n".join(thoughts), frame, problems)))
        thoughts.clear()

    for tag, content, closed in _blocks(text, inside):
        content = content.strip()
        if tag is not None and not closed:
            problems.append(ParseProblem(f"unclosed_{tag}", content[-80:]))
        if tag == "observation" or not (tag or content):
            continue
        if answer is not None:
            problems.append(ParseProblem("text_after_answer", content[:80]))
        elif tag == "answer":
            if not closed:
                continue  # an answer that was cut off is no answer
            answer = _in_pixels(content, frame, problems) if frame.answers_point else content
            if not content:
                problems.append(ParseProblem("empty_answer", ""))
                answer = None
        elif tag == "tool_call":
            close_thoughts()
            call = _zoom_call(content, frame, problems)
            if call is not None and steps:
                steps[-1] = replace(steps[-1], call=call)
            elif call is not None:
                problems.append(ParseProblem("call_without_thought", content[:80]))
        else:
            if tag is None:
                problems.append(ParseProblem("text_outside_tags", content[:80]))
            if content:
                thoughts.append(content)
                if not _COORDINATE.search(content):
                    problems.append(ParseProblem("thought_without_point", content[:80]))
            else:
                problems.append(ParseProblem("empty_think", ""))
    close_thoughts()
    return ParsedResponse(tuple(steps), answer, tuple(problems))


def render(
    steps: Sequence[Step], answer: str | None, frame: Frame, *, one_block: bool = False
) -> str:
    """Render steps and answer as text, with coordinates in `frame`.

    Args:
        one_block: one think block per turn instead of one per thought.
    """
    lines: list[str] = []
    turn: list[str] = []

    def close_turn() -> None:
        if one_block and turn:
            lines.append(f"<think>{chr(10).join(turn)}</think>")
        else:
            lines.extend(f"<think>{thought}</think>" for thought in turn)
        turn.clear()

    for step in steps:
        turn.append(_from_pixels(step.thought, frame))
        if step.call is not None:
            close_turn()
            coordinate = [_format_number(value) for value in frame.to_model(step.call)]
            arguments: dict[str, object] = {"coordinate": coordinate}
            if step.call.image:
                arguments["image"] = step.call.image + 1
            call = json.dumps({"name": ZOOM_TOOL, "arguments": arguments})
            lines.append(f"<tool_call>{call}</tool_call>")
    close_turn()
    if answer is not None:
        text = _from_pixels(answer, frame) if frame.answers_point else answer
        lines.append(f"<answer>{text}</answer>")
    return "\n".join(lines)


def revisits(thought: str) -> bool:
    """Return whether a thought announces a second look: it verifies, or turns back."""
    return _REVISIT.search(thought) is not None


def fold_remark(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Merge a closing remark, a last step without a point, into the step before it."""
    if len(steps) < 2 or steps[-1].point is not None:
        return tuple(steps)
    *before, last, remark = steps
    return (*before, replace(last, thought=f"{last.thought}\n{remark.thought}"))


def points_in(text: str) -> tuple[Point, ...]:
    """Return the points that a text in original pixels cites, in reading order."""
    return tuple(_point(match) for match in _COORDINATE.finditer(text))


def _point(match: re.Match[str]) -> Point:
    return Point(float(match[1]), float(match[2]), int(match[4] or 1) - 1)


def sentences(text: str) -> list[str]:
    """Split a text into sentences, at the same ends as steps; the last may lack its end mark."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    cuts = zip([0, *ends], [*ends, len(text)], strict=True)
    return [part for start, end in cuts if (part := text[start:end].strip())]


def move_points(thought: str, move: Callable[[Point], Point]) -> str:
    """Move every point that a thought in original pixels cites, within the point's image."""

    def convert(match: re.Match[str]) -> str:
        moved = move(_point(match))
        return _format_point(moved.x, moved.y, match)

    return _COORDINATE.sub(convert, thought)


def replace_points(text: str, replacement: Callable[[Point], str]) -> str:
    """Replace every point that a text in original pixels cites by `replacement(point)`."""
    return _COORDINATE.sub(lambda match: replacement(_point(match)), text)


def points_outside(points: Sequence[Point], frame: Frame) -> tuple[Point, ...]:
    """Return the `points` that lie outside their image."""
    return tuple(point for point in points if not frame.inside(point))


def _blocks(text: str, inside: str | None) -> Iterator[tuple[str | None, str, bool]]:
    """Split `text` at its tags into (tag or None for bare text, content, whether it was closed).

    A tag that opens inside another block ends that block unclosed; a closing tag that does not
    match stays part of the text.
    """
    tag, start = inside, 0
    for match in _TAG.finditer(text):
        closing, name = bool(match[1]), match[2]
        if closing and name != tag and tag is not None:
            continue  # a stray closing tag inside another block stays part of its text
        yield tag, text[start : match.start()], closing and tag is not None
        tag, start = (None if closing else name), match.end()
    if tag is not None or text[start:].strip():
        yield tag, text[start:], False


def split_steps(text: str) -> list[Step]:
    """Split thoughts (original pixels) into steps, each ending with the sentence of its point.

    Text after the last point is a closing remark: a last step without a point.
    """
    steps: list[Step] = []
    start = 0
    for match in _COORDINATE.finditer(text):
        if match.start() < start:
            continue  # a second point of the sentence that ended the last step
        end_of_sentence = _SENTENCE_END.search(text, match.end())
        end = end_of_sentence.end() if end_of_sentence else len(text)
        thought = text[start:end].strip()
        steps.append(Step(thought, points_in(thought)))
        start = end
    rest = text[start:].strip()
    if rest:
        steps.append(Step(rest))
    return steps


def _in_pixels(text: str, frame: Frame, problems: list[ParseProblem]) -> str:
    """Convert a text's coordinates from `frame` to original pixels; record errors in `problems`."""

    def convert(match: re.Match[str]) -> str:
        image = int(match[4] or 1) - 1
        if not 0 <= image < len(frame.images):
            problems.append(ParseProblem("no_such_image", match[0]))
            return match[0].replace("(", "[").replace(")", "]")  # no longer a coordinate
        point = frame.to_point(float(match[1]), float(match[2]), image)
        if not frame.inside(point):
            problems.append(ParseProblem("point_outside_image", match[0]))
        return _format_point(point.x, point.y, match)

    return _COORDINATE.sub(convert, text)


def _from_pixels(text: str, frame: Frame) -> str:
    """Convert a text's coordinates from original pixels to `frame`."""
    if frame.space.kind is SpaceKind.ABSOLUTE_ORIGINAL:
        return text

    def convert(match: re.Match[str]) -> str:
        image = int(match[4] or 1) - 1
        x, y = frame.to_model(Point(float(match[1]), float(match[2]), image))
        return _format_point(x, y, match)

    return _COORDINATE.sub(convert, text)


def _format_point(x: float, y: float, match: re.Match[str]) -> str:
    suffix = f"{match[3]}{match[4]}" if match[4] else ""
    return f"({_format_number(x)}, {_format_number(y)}){suffix}"


def _format_number(value: float) -> int | float:
    """Drop needless decimals: 82.0 -> 82, 81.9200001 -> 81.92."""
    rounded = round(value, DECIMALS)
    return int(rounded) if rounded == int(rounded) else rounded


def _zoom_call(content: str, frame: Frame, problems: list[ParseProblem]) -> Point | None:
    """Parse the point of a tool call; None, with the reason in `problems`, if there is none."""
    try:
        arguments = json.loads(content)["arguments"]
        x, y = (float(value) for value in arguments["coordinate"])
        image = int(arguments.get("image", 1)) - 1
        if not (abs(x) < 1e7 and abs(y) < 1e7 and 0 <= image < len(frame.images)):
            raise ValueError("no such place")
        point = frame.to_point(x, y, image)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        problems.append(ParseProblem("bad_tool_call", content[:80]))
        return None
    if not frame.inside(point):
        problems.append(ParseProblem("point_outside_image", content[:80]))
    return point
