"""The account at Stripe that the settings name, if they name one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgents.config import Settings

if TYPE_CHECKING:
    from kgents.billing.gateway import Gateway


def open_account(settings: Settings) -> Gateway | None:
    """A gateway to it. Raises Unprocessable for a URL that can't be used."""
    key = settings.stripe_api_key.get_secret_value()
    if not key:
        return None
    from kgents.billing.gateway import Gateway  # Stripe's library takes a third of a second, and 30 MB

    return Gateway(key, settings.stripe_url)
