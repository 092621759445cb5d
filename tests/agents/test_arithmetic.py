import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.agents.arithmetic import (
    MAX_BITS,
    MAX_CHARACTERS,
    MAX_DEPTH,
    ArithmeticProblem,
    calculate,
    evaluate,
    show,
)


def calculated_or_refused(text):
    try:
        return calculate(text)
    except ArithmeticProblem as problem:
        return str(problem)


LEAVES = st.integers(0, 10_000).map(lambda number: (str(number), Fraction(number))) | st.tuples(
    st.integers(0, 999), st.integers(0, 999)
).map(lambda parts: (f"{parts[0]}.{parts[1]:03}", Fraction(parts[0] * 1000 + parts[1], 1000)))


def _pairs(operands):
    return st.tuples(operands, st.sampled_from("+-*"), operands).map(_joined) | operands.map(
        lambda operand: (f"-({operand[0]})", -operand[1])
    )


def _joined(parts):
    (left_text, left), operator, (right_text, right) = parts
    value = {"+": left + right, "-": left - right, "*": left * right}[operator]
    return f"({left_text}) {operator} ({right_text})", value


EXPRESSIONS = st.recursive(LEAVES, _pairs, max_leaves=8)


@given(EXPRESSIONS)
def test_an_expression_has_the_value_that_exact_fractions_give_it(pair):
    text, value = pair
    assert evaluate(text) == value


@given(st.text(max_size=MAX_CHARACTERS + 10))
def test_any_text_is_calculated_or_refused_with_a_reason(text):
    assert calculated_or_refused(text)


@given(st.text(alphabet="0123456789.e+-*/%() ,sqrtoundabsmxpi_^", max_size=60))
def test_text_made_of_arithmetic_pieces_is_calculated_or_refused(text):
    assert calculated_or_refused(text)


@given(st.fractions(max_denominator=10**6))
def test_a_shown_number_is_exact_unless_it_says_that_it_is_rounded(value):
    shown = show(value)
    if shown.startswith("≈ "):
        assert math.isclose(float(shown[2:]), float(value), rel_tol=1e-12)
    else:
        assert Fraction(shown) == value


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("0.1 + 0.2", "0.3"),
        ("2 + 3 * 4", "14"),
        ("(2 + 3) * 4", "20"),
        ("2 - 3 - 4", "-5"),
        ("100 / 10 / 5", "2"),
        ("-2 ** 2", "-4"),
        ("2 ** -1", "0.5"),
        ("2 ** 3 ** 2", "512"),
        ("2^10", "1024"),
        ("7 // 2", "3"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("1 / 3", "≈ 0.333333333333333"),
        ("6 × 7 ÷ 2 − 1", "20"),  # noqa: RUF001 - what people paste
        ("sqrt(16)", "4"),
        ("sqrt(2)", "≈ 1.4142135623731"),
        ("sqrt(1/4)", "0.5"),
        ("round(2.5)", "3"),
        ("round(-2.5)", "-3"),
        ("round(2.345, 2)", "2.35"),
        ("max(1, 2, 3) - min(4, 5)", "-1"),
        ("abs(-3.50)", "3.5"),
        ("0 ** 10000", "0"),
        ("(-1) ** 1000001", "-1"),
        ("1_000 * 2", "2000"),
        ("2.5e3", "2500"),
        ("pi", "≈ 3.14159265358979"),
    ],
)
def test_known_answers(expression, answer):
    assert calculate(expression) == answer


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("9**9**9", "too large"),
        ("9**9**9**9", "too large"),
        ("10**10000", "too large"),
        ("2 ** 0.5 ** -99999", "too large"),
        ("1e999999999", "too large"),
        ("1e-999999999", "too"),
        ("1.0e308 * 10 ** 300 * pi", "too large"),
        ("pi * 10 ** 300 * 10 ** 300", "too large"),
        ("1" + " " * MAX_CHARACTERS, "it may have 500"),
        ("1 / 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("5 % (2 - 2)", "division by zero"),
        ("(-8) ** 0.5", "root of a negative number"),
        ("1 +", "a number is expected"),
        ("2 3", "not expected"),
        ("(1 + 2", "missing"),
        ("__import__('os')", "not arithmetic"),
        ("().__class__", "not arithmetic"),
        ("open(1)", "not known"),
        ("sqrt(1, 2)", "one argument"),
        ("round(1, 99)", "places"),
        ("round(1, 0.5)", "places"),
        ("٣ + 4", "not arithmetic"),
        ("", "a number is expected"),
    ],
)
def test_what_cannot_be_calculated_is_refused_with_the_reason(expression, reason):
    with pytest.raises(ArithmeticProblem, match=reason):
        calculate(expression)


def test_numbers_grow_to_the_bound_and_no_further():
    evaluate(f"2 ** {MAX_BITS - 1}")
    with pytest.raises(ArithmeticProblem, match="too large"):
        evaluate(f"2 ** {MAX_BITS - 1} * 2")


def test_nesting_is_bounded_before_the_stack_is():
    for nested in ("(" * 200 + "1" + ")" * 200, "-" * 400 + "1", "2**" * 150 + "1", "abs(" * 90 + "1" + ")" * 90):
        with pytest.raises(ArithmeticProblem, match="nested deeper"):
            evaluate(nested)
    assert evaluate("(" * (MAX_DEPTH - 1) + "1" + ")" * (MAX_DEPTH - 1)) == 1


def test_a_number_with_very_many_places_is_rounded_and_not_spelled_out():
    assert calculate("1 / 2 ** 4000").startswith("≈ ")
