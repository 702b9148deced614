"""The exact value of a formula, and what is none."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

from curation.grading.formula_values import same_value, value_in

PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862"
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+7", Fraction(9)),
        ("2-7-1", Fraction(-6)),
        ("2+3*4", Fraction(14)),
        ("(2+3)*4", Fraction(20)),
        ("12/4/3", Fraction(1)),
        ("12/4*3", Fraction(9)),
        (".5+1.25", Fraction(7, 4)),
        ("-2^2", Fraction(-4)),
        ("+3", Fraction(3)),
        ("2^3^2", Fraction(512)),
        ("2^-1", Fraction(1, 2)),
        ("2^(-2)", Fraction(1, 4)),
        ("9^(1/2)", Fraction(3)),
        ("4^(3/2)", Fraction(8)),
        ("√9", Fraction(3)),
        ("√(4/9)", Fraction(2, 3)),
        ("√0", Fraction(0)),
        ("√2*√2-2", Decimal(0)),
        ("2(3+4)", Fraction(14)),
        ("2√9", Fraction(6)),
    ],
)
def test_a_formula_has_its_value(text: str, value: Fraction | Decimal) -> None:
    found = value_in(text)
    if isinstance(value, Decimal):
        assert isinstance(found, Decimal) and abs(found - value) < Decimal(10) ** -50
    else:
        assert found == value and isinstance(found, Fraction)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("π", PI), ("2π", 2 * PI), ("π/2", PI / 2), ("π+1", PI + 1), ("1-π", 1 - PI),
        ("π*π", PI * PI), ("π^2", PI * PI), ("√2", Decimal(2).sqrt()), ("2/π", 2 / PI),
        ("√(π^2)", PI), ("(1/3)π", PI / 3),
    ],
)  # fmt: skip
def test_what_is_no_fraction_has_many_digits(text: str, value: Decimal) -> None:
    found = value_in(text)
    assert isinstance(found, Decimal) and found == pytest.approx(value, rel=Decimal(10) ** -25)


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "2+", "2+b", "(2", "2)", "()", "√", "√(0-1)", "1/0", "π2", "1/2π", "1/2(3)",
        "2^π", "2^(1/3)", "2^^3", "2**3", "0^-1", "99^99999", "2^40000*2^40000",
    ],
)  # fmt: skip
def test_what_is_no_formula_or_too_large_has_none(text: str) -> None:
    assert value_in(text) is None


def test_a_formula_is_no_longer_or_deeper_than_people_write() -> None:
    assert value_in("1" + "+1" * 79) == 80
    assert value_in("1" + "+1" * 80) is None
    assert value_in("(" * 29 + "7" + ")" * 29) == 7
    assert value_in("(" * 30 + "7" + ")" * 30) is None
    assert value_in("+".join(["(1)"] * 31)) == 31, "beside each other is not deep"


def test_what_can_be_worked_out_must_be() -> None:
    assert same_value("9", "2+7") and not same_value("2+7", "9") and not same_value("2+7", "2+7")
    assert not same_value("8", "2+7") and not same_value("9", "many")
    assert same_value("√8", "2√2") and same_value("2√2", "√8") and not same_value("√8", "3√2")
    assert not same_value("√8", "many") and not same_value("many", "√8")
    assert same_value(r"\frac{5\pi}{3}", r"\frac{5}{3}\pi")
    assert not same_value("3.14159265358979", "π") and not same_value("√8", "3")
    assert same_value("10^25*π", "π*10^25"), "digits count from the first"
