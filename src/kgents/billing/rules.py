"""What a plan may look like: checks that raise Unprocessable with the field and the way to mend it."""

from __future__ import annotations

import re

from kgents.billing.model import MAX_AMOUNT, MAX_PER, MAX_PRICES, MAX_UNIT, Terms
from kgents.tenants.model import MAX_QUOTA
from kgents.tenants.rules import check_name, check_quota, refuse
from kgents.usage.model import METERS

_CURRENCY = re.compile(r"[a-z]{3}", re.ASCII)
_MODEL = re.compile(r"[^\x00-\x20]{1,256}")


def check_terms(terms: Terms) -> Terms:
    """Terms whose every amount is in bounds, and which have at most one price for a meter's units of a model."""
    check_name(terms.name)
    if not _CURRENCY.fullmatch(terms.currency):
        refuse("currency", "must be three small letters, as ISO 4217 has them, such as eur")
    _check_number("monthly_fee", terms.monthly_fee, 0, MAX_AMOUNT)
    for meter, limit in terms.quotas.items():
        check_quota(meter, limit)
    if len(terms.prices) > MAX_PRICES:
        refuse("prices", f"may be {MAX_PRICES} at most")
    seen = set()
    for place, price in enumerate(terms.prices):
        field = f"prices[{place}]"
        if price.meter not in METERS:
            refuse(f"{field}.meter", f"must be one of {', '.join(METERS)}")
        if price.model is not None and not _MODEL.fullmatch(price.model):
            refuse(f"{field}.model", "must be a model such as kgents:echo, or null for all others")
        _check_number(f"{field}.amount", price.amount, 0, MAX_AMOUNT)
        _check_number(f"{field}.per", price.per, 1, MAX_PER)
        _check_number(f"{field}.included", price.included, 0, MAX_QUOTA)
        if price.amount > price.per * MAX_UNIT:
            refuse(f"{field}.amount", f"comes to more than {MAX_UNIT} minor units for each unit")
        if (price.meter, price.model) in seen:
            refuse(field, f"is a second price of {price.meter} for {price.model or 'all other models'}")
        seen.add((price.meter, price.model))
    return terms


def _check_number(field: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        refuse(field, f"must be a whole number from {least} to {most}")
