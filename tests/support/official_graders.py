"""What benchmarks' own graders take for right, said again in our words, and a table beside ours.

    python -m tests.support.official_graders        # prints the table of docs/scores.md

Each function says of one answer whether that grader counts it, where no model is asked. Read from
the authors' repositories in November 2026: MATH-V (evaluation/), VLMEvalKit (option matching, used
for BLINK, RealWorldQA, MMMU and others), MMMU (eval_utils), POPE (evaluate.py), RoboSpatial-Eval
and VisualWebArena (browser_env/actions.py and the evaluators of texts).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from curation.grading.grade import grade
from mcts.data import AnswerKind, Image, Question

LETTERS = "ABCDEFGH"


def mathvision(answer: str, choices: Sequence[str], gold: str) -> bool:
    """MATH-V: cut behind `is`, unbox, strip LaTeX's spaces and units; compare to two decimals."""
    golds = [gold]
    if choices:
        golds = [LETTERS[choices.index(gold)], gold]
    said = answer.strip()
    for letter in "ABCDE":
        if said.endswith((f" {letter}.", f" ({letter}).")):
            said = letter
    last = said.split("is ")[-1].rstrip(".")
    if re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)", last):
        said = last
    if "oxed{" not in said:
        for flag in ("the final answer is", "the answer is", "the correct answer is"):
            for spelled in (flag, flag.capitalize()):
                if spelled in said:
                    said = said.split(spelled)[-1].strip().split("\n")[0].split(". ")[0]
    said = _mathvision_cleaned(said)
    return any(_mathvision_equal(said, wanted.lower().strip()) for wanted in golds)


def _mathvision_cleaned(text: str) -> str:
    text = text.lower().replace("{}", "")
    if boxed := re.findall(r"oxed{(.*)}", text, re.DOTALL):
        text = boxed[-1]
    text = text.split("=")[-1].split("\\approx")[-1]
    dropped = (
        *(" ", "\\,", "\n", "\\text", "\\mbox", "\\left", "\\right", "^{\\circ}", "^\\circ"),
        *("{m}^3", "m^3", "{units}", "units", "{km}", "km", "\\!", "\\$", "$", "\\%"),
    )
    for piece in dropped:
        text = text.replace(piece, "")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    for letter in "abcde":
        text = text.replace(f"({letter})", letter).replace(f"{{{letter}}}", letter)
    return text.rstrip(".").lstrip(":").strip()


def _mathvision_equal(said: str, wanted: str) -> bool:
    if not said or not wanted:
        return False
    if said == wanted or _items(said) == _items(wanted) is not None:
        return True
    a, b = _number(said), _number(wanted)
    return a is not None and b is not None and round(a, 2) == round(b, 2)


def _items(text: str) -> list[float] | None:
    if len(text) < 3 or text[0] + text[-1] not in ("()", "[]") or "," not in text:
        return None
    values = [_number(part) for part in text[1:-1].split(",")]
    return None if None in values else [round(value or 0, 2) for value in values]


def _number(text: str) -> float | None:
    """A LaTeX formula's value, as a parser of LaTeX has it."""
    text = text.replace("$", "").replace(" ", "").replace("\\cdot", "*").replace("\\times", "*")
    text = text.replace(":", "/")
    for _ in range(4):
        text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", text)
        text = re.sub(r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)", text)
    text = text.replace("\\pi", "pi").replace("^", "**").replace("{", "(").replace("}", ")")
    text = re.sub(r"(?<=[\d)])(?=pi|sqrt|\()", "*", text)
    if not re.fullmatch(r"(?:[\d.+\-*/()]|pi|sqrt)+", text) or len(text) > 60 or "****" in text:
        return None
    try:
        return float(eval(text, {"__builtins__": {}}, {"pi": math.pi, "sqrt": math.sqrt}))
    except Exception:
        return None


def options(answer: str, choices: Sequence[str], gold: str) -> bool:
    """VLMEvalKit: the one letter among the words, else the one option whose text is contained."""
    letters = LETTERS[: len(choices)]
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", answer).split()
    found = [letter for letter in letters if letter in words]
    if len(found) == 1 and words.index(found[0]) > len(words) - 5:
        return choices[LETTERS.index(found[0])] == gold
    if said := re.search(r"answer\s+is\s+\**([ABCD])\**", answer, re.IGNORECASE):
        return said[1].upper() in letters and choices[LETTERS.index(said[1].upper())] == gold
    if len(answer) > 2 * sum(map(len, choices)):
        return False
    contained = [choice for choice in choices if choice.lower() in answer.lower()]
    return contained == [gold]


def mmmu(answer: str, choices: Sequence[str], gold: str) -> bool:
    """MMMU: the last `(B)` or ` B `, in longer texts the last option; open: contained, to 0.01."""
    if not choices:
        return _mmmu_open(answer, gold)
    letters = LETTERS[: len(choices)]
    text = f" {answer.strip(''',.!?;:' ''')} "
    for form in ("({})", " {} "):
        if places := {letter: text.rfind(form.format(letter)) for letter in letters}:
            last = max(letters, key=lambda letter: places[letter])
            if places[last] >= 0:
                return choices[LETTERS.index(last)] == gold
    if len(text.split()) <= 5:
        return False  # the authors draw a letter by lot
    last_text = max(choices, key=lambda choice: text.lower().rfind(choice.lower()))
    return last_text.lower() in text.lower() and last_text == gold


def _mmmu_open(answer: str, gold: str) -> bool:
    numbers = [
        round(float(number.replace(",", "")), 2)
        for number in re.findall(r"-?\d+(?:,\d{3})*(?:\.\d+)?", answer)
    ]
    try:
        return round(float(gold.replace(",", "")), 2) in numbers
    except ValueError:
        return gold.lower().strip() in answer.lower()


def pope(answer: str, choices: Sequence[str], gold: str) -> bool:
    """POPE: no where the first sentence has `No`, `no` or `not` as a word, else yes."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return gold == ("no" if {"No", "no", "not"} & set(words) else "yes")


def robospatial(answer: str, choices: Sequence[str], gold: str) -> bool:
    """RoboSpatial-Home: begins with yes, or with no."""
    return answer.strip().lower().startswith(gold)


def in_polygon(x: float, y: float, polygon: Sequence[tuple[float, float]]) -> bool:
    """RoboSpatial-Home: whether a ray to the right crosses an odd number of sides."""
    sides = zip(polygon, (polygon[-1], *polygon[:-1]), strict=True)
    crossed = [
        (bx - ax) * (y - ay) / (by - ay) + ax
        for (ax, ay), (bx, by) in sides
        if (ay > y) != (by > y)
    ]
    return sum(x < place for place in crossed) % 2 == 1


_ON_NUMBERS = ("click", "hover", "clear", "tab_focus")


def webarena_action(text: str) -> tuple[str, ...] | None:
    """VisualWebArena: the action that the environment does; None where it refuses the text."""
    text = text.strip()
    name = text.split("[")[0].strip() if "[" in text else (text.split() or [""])[0]
    patterns = {
        **{one: rf"{one} ?\[(\d+)\]" for one in _ON_NUMBERS},
        "press": r"press ?\[(.+)\]", "goto": r"goto ?\[(.+)\]",
        "scroll": r"scroll ?\[?(up|down)\]?", "stop": r"stop ?\[(.+)\]",
    }  # fmt: skip
    if name in ("new_tab", "close_tab", "go_back", "go_forward"):
        return (name,)
    if name == "type":
        text += "" if text.endswith(("[0]", "[1]")) else " [1]"
        found = re.search(r"type ?\[(\d+)\] ?\[(.+)\] ?\[(\d+)\]", text)
        return (name, *found.groups()) if found else None
    if name not in patterns:
        return None
    found = re.search(patterns[name], text)
    if found is None:
        return (name, "") if name == "stop" else None
    return (name, found[1])


def webarena_text(answer: str, choices: Sequence[str], gold: str) -> bool:
    """VisualWebArena: the gold text stands in the answer, as a word where it is one word."""
    said, wanted = answer.strip("'\"").lower(), gold.lower()
    if re.fullmatch(r"[\w.]+", wanted):
        return wanted in re.findall(r"\d+(?:[.,]\d+)*|\w+|[^\w\s]", said)
    return wanted in said


Grader = Callable[[str, Sequence[str], str], bool]


def ours(answer: str, choices: Sequence[str], gold: str) -> bool:
    question = Question(
        "t", "?", (Image("a", 9, 9),), AnswerKind.TEXT, choices=tuple(choices), answers=(gold,)
    )
    return grade(question, answer).score == 1


COLUMNS: dict[str, Grader] = {
    "here": ours, "MathVision": mathvision, "VLMEvalKit": options, "MMMU": mmmu, "POPE": pope,
    "RoboSpatial": robospatial, "VisualWebArena": webarena_text,
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """A way in which a right answer is written."""

    said: str
    answer: str
    gold: str
    choices: tuple[str, ...] = ()
    graders: tuple[str, ...] = ("MathVision", "MMMU", "VisualWebArena")


_BLUE = ("red", "dark blue")
_YES_NO = ("yes", "no")
_BY_OPTION = ("MathVision", "VLMEvalKit", "MMMU")
_BY_WORD = ("VLMEvalKit", "POPE", "RoboSpatial")


def _option(said: str, answer: str) -> Form:
    return Form(said, answer, "dark blue", _BLUE, _BY_OPTION)


def _yes_no(said: str, answer: str) -> Form:
    return Form(said, answer, "no", _YES_NO, _BY_WORD)


FORMS = (
    _option("the letter", "B"),
    _option("… in brackets, with an end mark", "(B)."),
    _option("… in full-width brackets", "（B）"),
    _option("… in quotes", '"B"'),
    _option("… bold or boxed", "\\boxed{B}"),
    _option("… announced", "Answer: B"),
    _option("… with its text", "B) dark blue"),
    _option("the text", "dark blue"),
    _option("… in capitals, with an end mark", "Dark blue。"),
    _option("a sentence with the letter in it", "I would say (B) here."),
    _option("a sentence with the text in it", "The car is dark blue."),
    _yes_no("the word", "No."),
    _yes_no("the word and more", "No, there is none."),
    _yes_no("a sentence that denies", "There is not one here."),
    Form("spaces of LaTeX", "2 \\pi", "2\\pi"),
    Form("another form of an irrational number", "\\frac{5\\pi}{3}", "\\frac{5}{3} \\pi"),
    Form("a fraction for a decimal", "\\frac{1}{2}", "0.5"),
    Form("degrees named", "90^\\circ", "90"),
    Form("money named", "$16.99", "16.99"),
    Form("the variable named", "x = 5", "5"),
    Form("a unit without a name", "5 units", "5"),
    Form("thousands apart", "1 000", "1000"),
    Form("thousands with a comma", "1,000", "1000"),
    Form("spaces in a tuple", "(3, 4)", "(3,4)"),
    Form("a space behind a sign", "- 3", "-3"),
    Form("digits of another script", "１２", "12"),
    Form("a number in words", "three", "3"),
    Form("rounded to two decimals", "3.14", "3.142"),
    Form("a sum that is not worked out", "2+7", "9"),
    Form("a per cent sign too many", "50\\%", "50"),
    Form("a unit too many", "12 km", "12"),
    Form("a sentence with the number in it", "there are 12 of them", "12"),
    Form("the number as a ratio to one", "1:1", "1"),
)


def table() -> str:
    """The table in docs/scores.md: whether each grader counts a right answer in each form."""
    lines = [
        f"| a right answer as | example, for | {' | '.join(COLUMNS)} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
    ]
    for form in FORMS:
        cells = [
            ("right" if grader(form.answer, form.choices, form.gold) else "wrong")
            if name == "here" or name in form.graders
            else ""
            for name, grader in COLUMNS.items()
        ]
        example = f"`{form.answer}`, for `{form.gold}`"
        lines.append(f"| {form.said} | {example} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
