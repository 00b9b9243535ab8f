"""Where Stripe tells what became of invoices. A request brings a signature of its body instead of an API key."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from kgents.api.problems import PROBLEMS
from kgents.api.services import Services
from kgents.billing import inbox
from kgents.errors import InvalidRequest, NotFound
from kgents.store.engine import Scope

router = APIRouter(tags=["Billing"])

EVENT = {
    "type": "object",
    "title": "StripeEvent",
    "description": "An event (https://docs.stripe.com/api/events/object). Those that are about no invoice are let be.",
    "required": ["id", "type", "data"],
    "properties": {"id": {"type": "string"}, "type": {"type": "string"}, "data": {"type": "object"}},
}
"""The body's schema. Nothing of it is looked at before the signature."""
_ASKED: dict[str, Any] = {
    "parameters": [
        {
            "name": "Stripe-Signature",
            "in": "header",
            "required": True,
            "description": "As in https://docs.stripe.com/webhooks/signature.",
            "schema": {"type": "string"},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/StripeEvent"}}},
    },
}


@router.post(
    "/webhooks/stripe",
    operation_id="take_stripe_event",
    summary="Take an event of Stripe's",
    status_code=204,
    response_class=Response,
    responses=PROBLEMS,
    openapi_extra=_ASKED,
)
async def take_stripe_event(request: Request) -> Response:
    """Keep an event of an invoice. 204 says that it is kept; Stripe sends again what gets no such answer, for three
    days.
    """
    services: Services = request.app.state.services
    secret = services.settings.stripe_webhook_secret.get_secret_value()
    signature = request.headers.get("stripe-signature", "")
    if not secret and signature:
        raise NotFound("No webhooks are taken here: KGENTS_STRIPE_WEBHOOK_SECRET is not set.", code="no-webhooks")
    now = services.clock.now()
    try:
        event = inbox.verify(await request.body(), signature, secret, now)
    except InvalidRequest:
        services.metrics.webhook("refused")
        raise
    if event is None:
        services.metrics.webhook("no_invoice")
    else:
        new = await services.store.write(Scope.system(), partial(inbox.put, event=event, now=now))
        services.metrics.webhook("kept" if new else "known")
    return Response(status_code=204)
