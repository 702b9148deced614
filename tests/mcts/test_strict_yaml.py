"""YAML that people write: what is wrong is one short sentence, whatever the file holds."""

from __future__ import annotations

import pytest

from mcts.strict_yaml import YamlProblem, parse_value, parse_yaml, shorten

BOMB = "a: &a [x, x, x]\n" + "\n".join(f"b{i}: &b{i} [*a, *a, *a]" for i in range(9))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3", "run.yaml, line 3: a stands there twice"),
        ("x: {k: 1, k: 2}", "run.yaml, line 1: k stands there twice"),
        (BOMB, r"run.yaml, line 2: aliases \(\*name\) are not read"),
        ("a: [1", "run.yaml, line 1: expected"),
        ("a: 2024-13-45", "run.yaml: it is no YAML: 'month must be in 1..12'"),
        ("a: !!int abc", "run.yaml: it is no YAML: "),
        ("a: !!python/object:os.system x", "run.yaml, line 1: could not determine a constructor"),
        ("\0", "run.yaml: it is no YAML: "),
        ("[" * 5000, "run.yaml: it is nested too deeply"),
        ("a: " + "x" * 2_000_000, "run.yaml: it is longer than 1000000 characters"),
    ],
)
def test_what_is_wrong_is_one_short_sentence(text: str, sentence: str) -> None:
    with pytest.raises(YamlProblem, match=f"^{sentence}") as problem:
        parse_yaml(text, "run.yaml")
    assert len(str(problem.value)) < 250 and "\n" not in str(problem.value)


def test_a_right_text_gives_its_nodes_and_values() -> None:
    root, values = parse_yaml("a: 1\nb: [2]\n", "f")
    assert values == {"a": 1, "b": [2]} and root.value[0][0].start_mark.line == 0
    assert parse_yaml("# nothing", "f") == (None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("[a, 2]", ["a", 2]), ("2024-13-45", "2024-13-45"), ("a: [", "a: ["), (3, 3)],
)
def test_a_typed_value_is_read_as_yaml_or_stays_a_text(text: object, value: object) -> None:
    assert parse_value(text) == value


def test_a_value_is_shown_in_a_line() -> None:
    assert len(shorten("x" * 10**6)) < 100 and len(shorten([["y"] * 10**4] * 10**3)) < 600
