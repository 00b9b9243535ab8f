"""Money: what a quantity and a part of a month cost, exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgents.billing.model import Price, Terms, fee_of
from kgents.billing.rules import check_terms
from kgents.errors import Unprocessable

MONTH = (0, 30 * 86_400_000_000)


def half_up(exact: Fraction) -> int:
    return int(exact + Fraction(1, 2))


def terms(**fields: object) -> Terms:
    return Terms(**{"name": "pro", "currency": "eur", "monthly_fee": 0, "prices": (), "quotas": {}, **fields})


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [(0, 0), (1_000, 0), (1_001, 0), (2_666, 0), (2_667, 1), (1_001_000, 300), (1_002_666, 300), (1_002_667, 301)],
)
def test_what_is_included_is_free_and_a_half_is_rounded_up(quantity: int, amount: int) -> None:
    assert Price("input_tokens", None, 300, 1_000_000, 1_000).charge(quantity) == amount


@given(
    quantity=st.integers(0, 2**53),
    amount=st.integers(0, 10**11),
    per=st.integers(1, 10**9),
    included=st.integers(0, 10**9),
)
def test_a_charge_is_the_exact_one_rounded_once(quantity: int, amount: int, per: int, included: int) -> None:
    exact = Fraction(max(0, quantity - included) * amount, per)
    assert Price("runs", None, amount, per, included).charge(quantity) == half_up(exact)


@given(fee=st.integers(0, 10**11), bounds=st.tuples(st.integers(*MONTH), st.integers(*MONTH)).map(sorted))
def test_a_fee_is_charged_by_time(fee: int, bounds: list[int]) -> None:
    start, end = bounds
    assert fee_of(terms(monthly_fee=fee), start, end, MONTH) == half_up(Fraction(fee * (end - start), MONTH[1]))


def test_a_whole_month_costs_the_whole_fee() -> None:
    assert fee_of(terms(monthly_fee=4_900), *MONTH, MONTH) == 4_900


def test_a_model_has_its_own_price_or_that_of_all_others() -> None:
    general, own = Price("output_tokens", None, 2, 1, 0), Price("output_tokens", "big", 9, 1, 0)
    plan = terms(prices=(general, own))
    assert plan.price_of("output_tokens", "big") == own
    assert plan.price_of("output_tokens", "small") == general
    assert plan.price_of("input_tokens", "big") is None


REFUSED = {
    "name": {"name": " pro"},
    "currency": {"currency": "EUR"},
    "monthly_fee": {"monthly_fee": -1},
    "quotas": {"quotas": {"seats": 1}},
    "prices[0].meter": {"prices": (Price("seats", None, 1, 1, 0),)},
    "prices[0].model": {"prices": (Price("runs", "a b", 1, 1, 0),)},
    "prices[0].per": {"prices": (Price("runs", None, 1, 0, 0),)},
    "prices[0].included": {"prices": (Price("runs", None, 1, 1, -1),)},
    "prices[0].amount": {"prices": (Price("runs", None, 1_000_001, 1, 0),)},
    "prices[1]": {"prices": (Price("runs", None, 1, 1, 0), Price("runs", None, 2, 1, 0))},
}


@pytest.mark.parametrize("field", REFUSED)
def test_what_is_wrong_with_a_plan_is_named(field: str) -> None:
    with pytest.raises(Unprocessable) as refusal:
        check_terms(terms(**REFUSED[field]))
    assert refusal.value.detail.startswith(field.partition("quotas")[0] or "quotas")
