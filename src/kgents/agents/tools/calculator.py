"""Arithmetic on text: exact where it can be, and bounded, since the text is a model's or a tenant's."""

from __future__ import annotations

import ast
import decimal
import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

from kgents.agents.tools.failures import ToolError

MAX_LENGTH = 1000
MAX_BITS = 8192  # of a numerator or denominator: about 2,400 digits

Number = Fraction | Decimal  # exact, or rounded to 34 digits

_CONTEXT = decimal.Context(prec=34, traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow])
_LITERAL = re.compile(r"(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:e[+-]?\d{1,3})?", re.IGNORECASE)
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "·": "*"})  # noqa: RUF001  # as people write them


def calculate(expression: str) -> str:
    """The value of an expression: `7/4` is `1.75`, `1/3` is `0.333333333333333 (exactly 1/3)`.

    Knows + - * / // % **, parentheses, pi, e, and abs, ceil, exp, floor, gcd, ln, log10, max, min, round, sqrt. Raises
    ToolError for anything else, and for results that are not numbers or too large.
    """
    if len(expression) > MAX_LENGTH:
        raise ToolError(f"The expression is longer than {MAX_LENGTH} characters.")
    text = expression.translate(_SIGNS).strip()
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ToolError("That is not an arithmetic expression, such as (2 + 3) * 4.") from error
    try:
        with decimal.localcontext(_CONTEXT):
            return _shown(_value(tree.body, text))
    except ZeroDivisionError as error:
        raise ToolError("Division by zero.") from error
    except decimal.DecimalException as error:
        raise ToolError("The result is not a number, or too large.") from error
    except RecursionError as error:
        raise ToolError("The expression is nested too deeply.") from error


def _value(node: ast.expr, text: str) -> Number:
    match node:
        case ast.Constant() if type(node.value) in (int, float):
            return _literal(ast.get_source_segment(text, node) or "")
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand, text)
        case ast.UnaryOp(op=ast.UAdd()):
            return _value(node.operand, text)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _sized(_OPERATORS[type(node.op)](*_alike(_value(node.left, text), _value(node.right, text))))
        case ast.BinOp(op=ast.Pow()):
            return _sized(_power(_value(node.left, text), _value(node.right, text)))
        case ast.BinOp(op=ast.BitXor()):
            raise ToolError("Write powers with **, such as 2 ** 3.")
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            function, fewest, most = _FUNCTIONS[name]
            if not fewest <= len(node.args) <= most:
                raise ToolError(f"{name} takes {fewest if fewest == most else f'{fewest} or more'} numbers.")
            return _sized(function(*(_value(argument, text) for argument in node.args)))
    raise ToolError(
        "Only numbers, + - * / // % **, parentheses, pi, e and these functions are understood: "
        f"{', '.join(sorted(_FUNCTIONS))}."
    )


def _literal(text: str) -> Number:
    if not _LITERAL.fullmatch(text):
        raise ToolError(f"{text[:40]!r} is not a decimal number.")
    return _sized(Fraction(text.replace("_", "")))


def _sized(value: Number) -> Number:
    if isinstance(value, Fraction) and max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ToolError("The result is too large.")
    if isinstance(value, Decimal) and not value.is_finite():
        raise ToolError("The result is not a number, or too large.")
    return value


def _alike(left: Number, right: Number) -> tuple[Number, Number]:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left, right
    return _rounded(left), _rounded(right)


def _rounded(value: Number) -> Decimal:
    return Decimal(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _exact(value: Number) -> Fraction:
    if isinstance(value, Decimal) and abs(value.adjusted()) > MAX_BITS // 4:
        raise ToolError("The result is too large.")
    return Fraction(value)


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        whole = exponent.numerator
        if abs(base) == 1:
            return base if whole % 2 else Fraction(1)
        if base == 0 and whole > 0:
            return Fraction(0)
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(whole) * (bits - 1) <= MAX_BITS:
            return base**whole
    if exponent == Fraction(1, 2):
        return _sqrt(base)
    return _rounded(base) ** _rounded(exponent)


def _whole(value: Number, rounding: Callable[[Fraction], int]) -> Number:
    if isinstance(value, Decimal) and value.adjusted() >= _CONTEXT.prec:
        return value  # it has no digits behind the point any more
    return Fraction(rounding(_exact(value)))


def _sqrt(value: Number) -> Number:
    if isinstance(value, Fraction) and value >= 0:
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    return _rounded(value).sqrt()


def _round(value: Number, digits: Number = Fraction(0)) -> Number:
    places = _exact(digits)
    if places.denominator != 1 or abs(places) > 1000:
        raise ToolError("round takes a number, and a whole number of digits.")
    return round(_exact(value), places.numerator)


def _gcd(*values: Number) -> Fraction:
    whole = [_exact(value) for value in values]
    if any(value.denominator != 1 for value in whole):
        raise ToolError("gcd takes whole numbers.")
    return Fraction(math.gcd(*(value.numerator for value in whole)))


def _exp(value: Number) -> Decimal:
    return _rounded(value).exp()


def _ln(value: Number) -> Decimal:
    return _rounded(value).ln()


def _log10(value: Number) -> Decimal:
    return _rounded(value).log10()


_CONSTANTS: dict[str, Number] = {
    "pi": Decimal("3.141592653589793238462643383279503"),
    "e": Decimal("2.718281828459045235360287471352662"),
}
_OPERATORS: dict[type[ast.operator], Callable[..., Number]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: Fraction(math.floor(_exact(a) / _exact(b))),
    ast.Mod: lambda a, b: _exact(a) % _exact(b),
}
_FUNCTIONS: dict[str, tuple[Callable[..., Number], int, int]] = {
    "abs": (abs, 1, 1),
    "ceil": (lambda value: _whole(value, math.ceil), 1, 1),
    "exp": (_exp, 1, 1),
    "floor": (lambda value: _whole(value, math.floor), 1, 1),
    "gcd": (_gcd, 1, 100),
    "ln": (_ln, 1, 1),
    "log10": (_log10, 1, 1),
    "max": (lambda *values: max(values, key=_exact), 1, 100),
    "min": (lambda *values: min(values, key=_exact), 1, 100),
    "round": (_round, 1, 2),
    "sqrt": (_sqrt, 1, 1),
}


def _shown(value: Number) -> str:
    if isinstance(value, Decimal):
        return _digits(value, 15)
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest == 1 and value.denominator.bit_length() < 200:
        with decimal.localcontext(prec=MAX_BITS):
            return f"{Decimal(value.numerator) / value.denominator:f}"
    about = _digits(_rounded(value), 15)
    exactly = f"{value.numerator}/{value.denominator}"
    return f"{about} (exactly {exactly})" if len(exactly) <= 40 else f"{about} (rounded)"


def _digits(value: Decimal, digits: int) -> str:
    short = value.normalize(decimal.Context(prec=digits))
    return f"{short:f}" if -7 <= short.adjusted() < 21 else f"{short:E}"
