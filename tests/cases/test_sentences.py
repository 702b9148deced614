"""Sentences end, and a second look is announced, in every script."""

import pytest

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Image
from mcts.parsing import parse, render, revisits, sentences
from tests.support.project import Project, thinking

FRAME = Frame(CoordinateSpace.qwen3_vl(), (Image("a", 640, 480),))

# A sentence a place, in the script's own way; `{}` is the place.
SENTENCES = {
    "English": ("The red box is at {}.", " "),
    "English, quoted": ('He says "the box is at {}!"', " "),
    "Chinese": ("红色方块在{}。", ""),
    "Chinese, quoted": ("他说“红色方块在{}。”", ""),
    "English, hesitant": ("The red box is at {}…", " "),
    "Chinese, hesitant": ("红色方块在{}……", ""),
    "Chinese, asked": ("红色方块在{}吗？", ""),
    "Chinese, ASCII marks": ("红色方块在{}.", ""),
    "Japanese": ("赤い四角は{}にあります。", ""),
    "Japanese, half-width": ("赤い四角は{}にあります｡", ""),
    "Japanese, quoted": ("「赤い四角は{}にあります！」", ""),
    "Korean": ("빨간 상자는 {}에 있습니다.", " "),
    "Hindi": ("लाल डिब्बा {} पर है।", " "),
    "Hindi, without a space": ("लाल डिब्बा {} पर है।", ""),
    "Sanskrit": ("रक्तः {} अस्ति॥", " "),
    "Arabic": ("هل المربع الأحمر عند {}؟", " "),
    "Urdu": ("سرخ ڈبہ {} پر ہے۔", " "),
    "Thai": ("กล่องสีแดงอยู่ที่ {}", " "),
    "Khmer": ("ប្រអប់ក្រហមនៅ {}។", ""),
    "Burmese": ("အနီရောင် {} မှာရှိသည်။", ""),
    "Armenian": ("Կարմիր տուփը {} է։", " "),
    "Amharic": ("ቀይ ሳጥን {} ነው።", " "),
    "Tibetan": ("དམར་པོ་ {} །", "\n"),
    "Russian": ("Красный ящик в точке {}.", " "),
    "Greek": ("Το κόκκινο κουτί είναι στο {}.", " "),
}
PLACES = ["(100, 200)", "(300, 400)", "(500, 600)"]


@pytest.mark.parametrize("language", SENTENCES)
def test_s14_a_block_of_sentences_and_blocks_of_one_are_the_same_steps(language):
    sentence, gap = SENTENCES[language]
    told = [sentence.format(place) for place in PLACES]
    one = parse(f"<think>{gap.join(told)}</think>", FRAME)
    many = parse("".join(f"<think>{text}</think>" for text in told), FRAME)
    assert [len(step.points) for step in one.steps] == [1, 1, 1]
    assert one.steps == many.steps and not one.problems
    assert parse(render(one.steps, None, FRAME, one_block=True), FRAME).steps == one.steps
    assert len(sentences(gap.join(told))) == 3


@pytest.mark.parametrize(
    "text",
    [
        "From (1, 2) to (3, 4) is far.",
        "It measures 3.5 m at (1, 2), approx.twice that of (3, 4).",
        "从(100, 200)到(300, 400)很远。",
        "大约３．５米，从(100, 200)到(300, 400)。",
        "กล่องที่ (100, 200) อยู่ทางซ้ายของ (300, 400)",
        "กล่องที่ (100, 200) และ (300, 400)",
        "(100, 200)、(300, 400)にあります。",
    ],
)
def test_a_sentence_with_two_places_is_one_step(text):
    (step,) = parse(f"<think>{text}</think>", FRAME).steps
    assert len(step.points) == 2


def test_line_breaks_of_every_kind_end_a_sentence():
    for mark in ("\n", "\r\n", "\r", "\u2028", "\u2029"):
        steps = parse(f"<think>A (1, 2){mark}B (3, 4)</think>", FRAME).steps
        assert [step.thought[0] for step in steps] == ["A", "B"]


def test_s14_three_chinese_sentences_are_steps_of_a_point_each(project: Project):
    first = "<think>红色方块在 {p}。蓝色方块在 {p}。</think>"
    ran, _ = project.ask([{"a": "左"}], thinking(first, "<think>再看 {p}。</think>", "左"))
    assert ran.status == 0, ran.text
    rows = project.sql("SELECT trace_id, step, n_points, thought FROM steps ORDER BY 1, 2")
    assert rows and {row["n_points"] for row in rows} == {1}
    assert all(row["thought"].count("。") == 1 for row in rows)


@pytest.mark.parametrize(
    ("thought", "expected"),
    [
        ("再看红色方块(1, 2)。", True),
        ("等等，不对。", True),
        ("我重新检查一下(1, 2)。", True),
        ("もう一度見ます(1, 2)。", True),
        ("待って、確認します。", True),
        ("다시 확인합니다 (1, 2).", True),
        ("Проверю ещё раз (1, 2).", True),
        ("Ich schaue noch einmal (1, 2).", True),
        ("Je vérifie encore une fois (1, 2).", True),
        ("Lo miro otra vez (1, 2).", True),
        ("मैं फिर से देखता हूँ।", True),
        ("أنظر مرة أخرى.", True),
        ("ดูอีกครั้ง", True),
        ("红色方块在(1, 2)。", False),
        ("赤い四角は(1, 2)にあります。", False),
        ("The encore at the moment (1, 2).", False),
    ],
)
def test_a_second_look_is_announced_in_every_language(thought, expected):
    assert revisits(thought) is expected
