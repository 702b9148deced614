"""What holds for English holds for texts in every script."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.filters.base import Context
from curation.filters.content import NoPersonalData, personal_data
from curation.filters.decontaminate import ComparedQuestion, compare
from curation.filters.dedup import Document, NoNearCopy, canonical, find_copies
from curation.filters.grounding import check
from curation.filters.minhash import jaccard, shingles
from curation.filters.naming import labels_in
from curation.filters.words import amount, runs_of, words_of
from mcts.data import AnswerKind, Box, Image, Point, Question, Step, Trace

IMAGE = Image("a" * 64, 640, 480)
SIZES = ((640, 480),)

# The same texts with a word that changes: (text, the word, another one).
CHANGED = {
    "English": (
        "The red square is in the picture at (100, 100) and the blue square is on the other side "
        "at (300, 300). {} the answer must be left.", "So", "Thus",
    ),
    "Chinese": (
        "红色方块在图片中的 (100, 100)，而蓝色方块在图片的另一边 (300, 300)。{}答案一定是左边。",
        "所以", "因此",
    ),
    "Japanese": (
        "赤い四角は図の中の (100, 100) にあり、青い四角は反対側の (300, 300) にあります。"
        "{}答えは必ず左になります。", "だから", "よって",
    ),
    "Thai": (
        "สี่เหลี่ยมสีแดงอยู่ในภาพที่ (100, 100) และสี่เหลี่ยมสีน้ำเงินอยู่อีกด้านที่ (300, 300) {}คำตอบต้องเป็นซ้าย",
        "ดังนั้น", "เพราะฉะนั้น",
    ),
    "Khmer": (
        "ការ៉េក្រហមស្ថិតនៅក្នុងរូបភាពត្រង់ (100, 100) "
        "ហើយការ៉េខៀវស្ថិតនៅម្ខាងទៀតត្រង់ (300, 300) {}ចម្លើយត្រូវតែជាឆ្វេង",
        "ដូច្នេះ", "ហេតុនេះ",
    ),
    "Hindi": (
        "लाल वर्ग चित्र में (100, 100) पर है और नीला वर्ग दूसरी ओर (300, 300) पर है। {} उत्तर बाएँ ही "
        "होना चाहिए और कुछ नहीं हो सकता।", "इसलिए", "अतः",
    ),
}  # fmt: skip


def similarity(one: str, other: str) -> float:
    return jaccard(*(shingles(canonical(text, SIZES)) for text in (one, other)))


@pytest.mark.parametrize("language", CHANGED)
def test_s17_texts_that_differ_in_a_word_are_as_near_as_in_english(language: str) -> None:
    def near(language: str) -> float:
        text, word, other = CHANGED[language]
        return similarity(text.format(word), text.format(other))

    assert near(language) == pytest.approx(near("English"), abs=0.08)


@pytest.mark.parametrize("language", CHANGED)
def test_s17_a_near_copy_is_dropped_and_another_text_is_not(language: str) -> None:
    text, word, other = CHANGED[language]
    texts = [text.format(word), text.format(other), text.format("")[::-1]]
    documents = [
        Document(str(i), "direct", "left", ("p",), canonical(text, SIZES))
        for i, text in enumerate(texts)
    ]
    found = find_copies(documents, NoNearCopy(min_similarity=0.68))
    assert list(found) == ["1"] and found["1"].of == "0" and not found["1"].exact


def test_s17_the_default_filter_drops_a_near_copy_in_chinese() -> None:
    text = "先看红色方块在 (100, 100)。再看另一边的蓝色球在 (300, 300)。{}答案一定是左边。"
    documents = [
        Document(word, "direct", "left", ("p",), canonical(text.format(word), SIZES))
        for word in ("所以", "因此")
    ]
    assert list(find_copies(documents)) == ["所以"]


def test_s17_spaces_and_width_make_no_difference_in_chinese() -> None:
    one, two = (canonical(text, SIZES) for text in ("红色方块，左边！ＡＢＣ", "红色 方块 左边 abc"))
    assert one == two


def test_words_are_those_of_the_script() -> None:
    assert words_of("The red chair's (left).") == ["the", "red", "chair's", "left"]
    assert words_of("红色椅子。") == ["红", "色", "椅", "子"]
    assert words_of("椅子ABC 12") == ["椅", "子", "abc", "12"]
    assert words_of("हिन्दी में कुर्सी।") == ["हिन्दी", "में", "कुर्सी"]
    assert words_of("의자는 왼쪽에") == ["의자는", "왼쪽에"]
    assert words_of("กำลังดู") == ["กํ", "า", "ลั", "ง", "ดู"]


def test_english_runs_are_of_as_many_words_as_asked_for() -> None:
    words = list("abcde")
    assert runs_of(words, 3) == [("a", "b", "c"), ("b", "c", "d"), ("c", "d", "e")]
    assert runs_of(words, 3, full=True) == runs_of(words, 3)
    assert runs_of(words, 9) == [tuple(words)]
    assert runs_of([], 3) == [()]
    assert amount(words) == 5


LATIN = st.text("abcdefg éßñ @:.,'-_12½²", max_size=40)


@given(LATIN, st.integers(1, 5))
def test_texts_with_spaces_are_cut_into_runs_of_words(text: str, width: int) -> None:
    words = words_of(text)
    width = min(width, max(1, len(words)))
    expected = [tuple(words[i : i + width]) for i in range(len(words) - width + 1)] or [()]
    assert runs_of(words, width) == expected


@given(st.text(max_size=60), st.integers(1, 9))
def test_any_text_has_words_runs_and_shingles(text: str, width: int) -> None:
    words = words_of(text)
    assert words_of(" ".join(words)) == words
    assert runs_of(words, width) and runs_of(words, width, full=True)
    found = shingles(text, width)
    assert len(found) and (np.diff(found.astype(object)) > 0).all()


SCARF = (
    "在这张冬天于旧火车站拍摄的照片中，站在蓝色行李箱旁边的两个男人之中，"
    "是哪一个人的脖子上围着一条有条纹的围巾？"
)


def _compared(name: str, text: str, split: str = "train") -> ComparedQuestion:
    return ComparedQuestion(name, "mine", split, text, (f"image of {name}",))


@pytest.mark.parametrize(
    "text",
    [
        SCARF,
        "この冬に古い駅で撮られた写真の中で、青いスーツケースの横に立っている二人の男性のうち、"
        "首に縞模様のマフラーを巻いているのはどちらの人ですか？",
        "ในภาพถ่ายที่สถานีรถไฟเก่าในฤดูหนาวภาพนี้ "
        "ชายสองคนที่ยืนอยู่ข้างกระเป๋าเดินทางสีน้ำเงิน คนไหนพันผ้าพันคอลายทางไว้รอบคอ",
        "सर्दियों में पुराने रेलवे स्टेशन पर ली गई इस तस्वीर में नीले सूटकेस के पास खड़े दो आदमियों में से किसके "
        "गले में धारीदार मफलर है?",
    ],
)
def test_s30_a_question_of_its_own_words_is_found_in_the_test_split(text: str) -> None:
    held = [_compared("e", text, "test"), _compared("f", "椅子在哪里？", "test")]
    found = compare([_compared("a", text), _compared("b", "椅子在哪里？")], held, {})
    assert list(found.contaminated) == ["a"]
    assert found.contaminated["a"][0].way == "same_words"
    # Short questions are templates, in every script.
    assert list(found.words_alone) == ["b"]


def test_s30_half_of_a_chinese_question_is_enough_and_less_is_not() -> None:
    held = [_compared("e", SCARF, "test")]
    near = SCARF.replace("是哪一个人的脖子上围着一条有条纹的围巾", "谁更高")
    assert list(compare([_compared("a", near)], held, {}).contaminated) == ["a"]
    assert not compare([_compared("a", SCARF[:20])], held, {}).contaminated


def test_s30_a_chinese_template_is_no_leak() -> None:
    text = "在这张照片中，站在蓝色行李箱旁边的两个男人之中，是哪一个人更靠近门口的那一盏灯？"
    held = [_compared(f"e{i}", text, "test") for i in range(5)]
    found = compare([_compared("a", text)], held, {})
    assert not found.contaminated and list(found.words_alone) == ["a"]


QUESTION = Question("t", "在哪里？", (IMAGE,), AnswerKind.TEXT, ("左", "右"), ("左",))


def test_a_label_is_found_within_a_chinese_sentence() -> None:
    labels = ["红色方块", "方块", "人", "red box"]
    assert labels_in("红色方块在 (30, 30)。", labels) == ["红色方块"]
    assert labels_in("人行道在 (30, 30)。", labels) == []  # one sign alone may be part of any word
    assert labels_in("the red boxes are at (30, 30).", labels) == ["red box"]
    boxes = ([Box(20, 20, 40, 40, label="红色方块"), Box(200, 200, 240, 240, label="蓝色球")],)

    def grounded(thought: str, x: int) -> bool | None:
        step = Step(f"{thought} ({x}, {x})", (Point(x, x),))
        trace = Trace("q", (step,), "左", 1.0, "direct")
        return check(trace, boxes)[0].grounded

    assert grounded("红色方块在", 30) is True
    assert grounded("红色方块在", 220) is False
    assert grounded("椅子在", 220) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("请联系zhang@qq.com或者", "an e-mail address"),
        ("电话是+86 138 1234 5678的", "a telephone number"),
        ("電話：＋８１ ９０ １２３４ ５６７８です", "a telephone number"),
        ("卡号4111 1111 1111 1111。", "a card number"),
        ("फ़ोन +९१ ९८७६५ ४३२१०", "a telephone number"),
    ],
)
def test_personal_data_is_found_between_signs_of_any_script(text: str, kind: str) -> None:
    assert [found for found, _ in personal_data(text)] == [kind]
    trace = Trace("q", (Step(text),), "左", 1.0, "direct")
    assert not NoPersonalData().apply(trace, QUESTION, Context()).keep


def test_random_chinese_texts_are_no_copies_of_one_another() -> None:
    rng = random.Random(2)
    signs = "红蓝绿黄方圆块球椅桌灯门在左右上下前后的是有看见人大小个只旁边"
    texts = ["".join(rng.choices(signs, k=40)) for _ in range(40)]
    documents = [
        Document(f"{i:02}", "direct", "left", ("p",), canonical(text, SIZES))
        for i, text in enumerate(texts)
    ]
    assert find_copies(documents) == {}
