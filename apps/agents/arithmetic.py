"""Arithmetic on text that strangers and models wrote. Pure.

`eval` is out of the question, and Python's own parser is not much better: it warns on odd input, takes
strings, names and comprehensions, and `9**9**9` occupies a core for hours. So this is a small grammar of its
own, evaluated while it is parsed, in exact fractions (0.1 + 0.2 is 0.3), with a bound on everything that can
grow: characters, nesting, digits.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

MAX_CHARACTERS = 500
MAX_DEPTH = 40
MAX_BITS = 4_096  # of a numerator or denominator: 1,233 digits
MAX_DIGITS_SHOWN = 300  # of an exact result; beyond, it is shown in scientific notation
MAX_ARGUMENTS = 20
SIGNIFICANT_DIGITS = 15  # of a result that has no exact finite decimal form

Number = Fraction | float


class ArithmeticProblem(ValueError):  # noqa: N818 - an answer to an expression, not a fault
    """The expression has no value here; the text says why, and what is accepted."""


def calculate(expression: str) -> str:
    """The value of `expression` as text; begins with "≈ " when it is rounded. Raises ArithmeticProblem."""
    return show(evaluate(expression))


def evaluate(expression: str) -> Number:
    """The value of `expression`: a fraction where it is exact. Raises ArithmeticProblem."""
    if len(expression) > MAX_CHARACTERS:
        raise ArithmeticProblem(f"the expression has {len(expression)} characters; it may have {MAX_CHARACTERS}")
    return _Parser(_tokens(expression)).whole()


def show(value: Number) -> str:
    """A value as people write it."""
    if isinstance(value, float):
        return f"≈ {value:.{SIGNIFICANT_DIGITS}g}"
    exact = _finite_decimal(value)
    if exact is not None and len(exact) <= MAX_DIGITS_SHOWN:
        return exact
    digits = Decimal(value.numerator) / Decimal(value.denominator)
    shown = f"{digits:.{SIGNIFICANT_DIGITS}g}"
    return f"≈ {shown}"


def _finite_decimal(value: Fraction) -> str | None:
    """All digits of a fraction whose denominator has the prime factors 2 and 5 only; None for any other."""
    denominator, places = value.denominator, 0
    while denominator % 10 == 0:
        denominator, places = denominator // 10, places + 1
    while denominator % 2 == 0:
        denominator, places = denominator // 2, places + 1
    while denominator % 5 == 0:
        denominator, places = denominator // 5, places + 1
    if denominator != 1:
        return None
    if places == 0:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, name, operator, end
    text: str


_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[a-z]+)|(?P<operator>\*\*|//|[-+*/%(),]))",
    re.ASCII | re.IGNORECASE,
)
# Signs in text that people paste.
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**"})  # noqa: RUF001 - as above


def _tokens(expression: str) -> list[_Token]:
    text = expression.translate(_SIGNS).rstrip()
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ArithmeticProblem(
                f"{text[position:].strip()[:1]!r} is not arithmetic; accepted are numbers, "
                f"+ - * / // % ** ( ) and {', '.join(sorted({*_FUNCTIONS, *_CONSTANTS}))}"
            )
        kind = match.lastgroup or ""
        tokens.append(_Token(kind, match[kind].lower()))
        position = match.end()
    tokens.append(_Token("end", ""))
    return tokens


class _Parser:
    """Recursive descent: sum, term, sign, power, atom; each level binds tighter than the one before."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0

    def whole(self) -> Number:
        value = self._sum()
        if self._next.kind != "end":
            raise ArithmeticProblem(f"{self._next.text!r} is not expected there; an operator is")
        return value

    @property
    def _next(self) -> _Token:
        return self._tokens[self._position]

    def _take(self, *texts: str) -> str | None:
        if self._next.kind == "operator" and self._next.text in texts:
            self._position += 1
            return self._tokens[self._position - 1].text
        return None

    def _expect(self, text: str) -> None:
        if self._take(text) is None:
            found = self._next.text or "the end"
            raise ArithmeticProblem(f"{text!r} is missing before {found!r}")

    def _sum(self) -> Number:
        value = self._term()
        while (operator := self._take("+", "-")) is not None:
            value = _apply(operator, value, self._term())
        return value

    def _term(self) -> Number:
        value = self._sign()
        while (operator := self._take("*", "/", "//", "%")) is not None:
            value = _apply(operator, value, self._sign())
        return value

    def _sign(self) -> Number:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ArithmeticProblem(f"the expression is nested deeper than {MAX_DEPTH} levels")
        sign = self._take("+", "-")
        value = self._sign() if sign is not None else self._power()
        self._depth -= 1
        return -value if sign == "-" else value

    def _power(self) -> Number:
        base = self._atom()
        # The exponent binds to the right and may have a sign: 2 ** -3 ** 2 is 2 ** (-(3 ** 2)).
        return _power(base, self._sign()) if self._take("**") is not None else base

    def _atom(self) -> Number:
        token = self._next
        if token.kind == "number":
            self._position += 1
            return _number(token.text)
        if token.kind == "name":
            self._position += 1
            return self._named(token.text)
        if self._take("(") is not None:
            value = self._sum()
            self._expect(")")
            return value
        raise ArithmeticProblem(f"a number is expected before {token.text or 'the end'!r}")

    def _named(self, name: str) -> Number:
        constant = _CONSTANTS.get(name)
        if constant is not None:
            return constant
        function = _FUNCTIONS.get(name)
        if function is None:
            known = ", ".join(sorted({*_FUNCTIONS, *_CONSTANTS}))
            raise ArithmeticProblem(f"{name[:40]!r} is not known; known are {known}")
        self._expect("(")
        arguments = [self._sum()]
        while self._take(",") is not None:
            arguments.append(self._sum())
            if len(arguments) > MAX_ARGUMENTS:
                raise ArithmeticProblem(f"{name} takes at most {MAX_ARGUMENTS} arguments")
        self._expect(")")
        return function(arguments)


def _number(text: str) -> Number:
    decimal = Decimal(text.replace("_", ""))
    # Before the fraction is made: 1e999999999 would be a number of a billion digits.
    if decimal and abs(decimal.adjusted()) > MAX_BITS // 4:
        raise _too_large()
    return _bounded(Fraction(decimal))


def _apply(operator: str, left: Number, right: Number) -> Number:
    if operator in ("/", "//", "%") and right == 0:
        raise ArithmeticProblem("division by zero")
    try:
        value: Number
        if operator == "+":
            value = left + right
        elif operator == "-":
            value = left - right
        elif operator == "*":
            value = left * right
        elif operator == "/":
            value = left / right
        elif operator == "//":
            value = Fraction(left // right)
        else:
            value = left % right
    except OverflowError:
        raise _too_large() from None
    return _bounded(value)


def _power(base: Number, exponent: Number) -> Number:
    if base == 0 and exponent < 0:
        raise ArithmeticProblem("division by zero")
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        # A number of b bits to the power of e has more than (b - 1) * e bits, and at most twice that: what passes here
        # is cheap to work out. 0, 1 and -1 have one bit, and stay small whatever the exponent is.
        if (bits - 1) * abs(exponent.numerator) > MAX_BITS:
            raise _too_large()
        return _bounded(Fraction(base**exponent.numerator))
    if base < 0:
        raise ArithmeticProblem("a root of a negative number is not a real number")
    try:
        return _bounded(float(base) ** float(exponent))
    except OverflowError:
        raise _too_large() from None


def _bounded(value: Number) -> Number:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _too_large()
    elif value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise _too_large()
    return value


def _too_large() -> ArithmeticProblem:
    return ArithmeticProblem("a number on the way is too large, or too small, to be worked with")


def _one(name: str, arguments: list[Number]) -> Number:
    if len(arguments) != 1:
        raise ArithmeticProblem(f"{name} takes one argument")
    return arguments[0]


def _sqrt(arguments: list[Number]) -> Number:
    value = _one("sqrt", arguments)
    if isinstance(value, Fraction) and value >= 0:
        root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
        if root * root == value:
            return root
    return _power(value, 0.5)


def _round(arguments: list[Number]) -> Number:
    """Half away from zero, as taught in school; Python's own rounds 2.5 to 2."""
    places = arguments[1] if len(arguments) > 1 else 0
    if len(arguments) > 2 or places not in range(16):  # noqa: PLR2004 - value and places
        raise ArithmeticProblem("round takes a number, and places from 0 to 15")
    scale = 10 ** int(places)
    rounded = math.floor(abs(Fraction(arguments[0])) * scale + Fraction(1, 2))
    return _bounded(Fraction(-rounded if arguments[0] < 0 else rounded, scale))


def _largest(arguments: list[Number]) -> Number:
    return max(arguments)


def _smallest(arguments: list[Number]) -> Number:
    return min(arguments)


def _absolute(arguments: list[Number]) -> Number:
    value = _one("abs", arguments)
    return -value if value < 0 else value


_CONSTANTS: Mapping[str, float] = MappingProxyType({"pi": math.pi, "e": math.e})
_FUNCTIONS: Mapping[str, Callable[[list[Number]], Number]] = MappingProxyType(
    {
        "abs": _absolute,
        "max": _largest,
        "min": _smallest,
        "round": _round,
        "sqrt": _sqrt,
    }
)
NAMES = frozenset({*_FUNCTIONS, *_CONSTANTS})
