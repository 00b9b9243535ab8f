"""What the prover knows of the API: which inputs may name an object, and a valid body for each operation with one.

A parameter, body or field of a body that stands in neither list fails the prover, so that a new one is decided upon:
does it name an object (then everything of the victim is tried there), or does it not?
"""

from __future__ import annotations

from typing import Any

# Inputs that name an object, and the kind of object of one's own that a valid request has there.
PATHS = {
    "agent": "agent",
    "session_id": "session",
    "run_id": "run",
    "response_id": "response",
    "key_id": "key",
    "tenant_id": "tenant",
    "invoice_id": "invoice",
    "model": "agent",
}
QUERIES = {"after": "run", "agent_id": "agent", "session_id": "session", "run": "run"}
HEADERS = {"Idempotency-Key": "idempotency key"}
FIELDS = {"model": "agent", "agent": "agent", "previous_response_id": "response"}

# Inputs that name none. A name that is given is the tenant's own: two tenants may give the same (test_names.py).
PLAIN_PATHS = {"version", "plan_id"}  # plans are the platform's
PLAIN_QUERIES = {
    *("limit", "stream", "starting_after", "status", "meter", "from", "to", "window", "group_by"),
    "verbose",
}
PLAIN_HEADERS = {
    "Last-Event-ID",  # a position in the run that the path names
    "Stripe-Signature",
}
PLAIN_FIELDS = {
    "AgentChange": {"name", "model", "instructions", "description", "tools", "output_schema", "temperature", "limits"},
    "AgentRequest": {"name", "model", "instructions", "description", "tools", "output_schema", "temperature", "limits"},
    "ApiKeyRequest": {"name", "scopes", "role", "expires_at"},
    "ChatRequest": {
        *("messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p"),
        *("stop", "seed", "n", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort"),
        *("metadata", "user", "store", "service_tier", "presence_penalty", "frequency_penalty", "safety_identifier"),
        *("prompt_cache_key", "verbosity"),
    },
    "ResponsesRequest": {
        *("input", "instructions", "stream", "stream_options", "background", "store", "max_output_tokens"),
        *("temperature", "top_p", "tools", "tool_choice", "parallel_tool_calls", "text", "metadata", "user"),
        *("reasoning", "include", "truncation", "service_tier", "safety_identifier", "prompt_cache_key"),
        *("max_tool_calls",),
    },
    "InvoiceChange": {"status"},
    "PlanRequest": {"name", "currency", "monthly_fee", "prices", "quotas"},
    "RotateRequest": {"overlap_seconds"},
    "RunRequest": {"input", "mode", "max_output_tokens", "temperature", "output_schema"},
    "SessionRequest": {"metadata"},
    "StripeEvent": {"id", "type", "data"},
    "SubscriptionRequest": {"plan"},
    "TenantChange": {"name", "status", "requests_per_minute", "tokens_per_minute", "quotas"},
    "TenantRequest": {"name", "status", "requests_per_minute", "tokens_per_minute", "quotas"},
}
MODELS_NOT_AGENTS = {"AgentChange", "AgentRequest"}  # there `model` is a provider's

_MESSAGES = [{"role": "user", "content": "hello"}]
# Bodies that are valid once FIELDS are filled in; where a field decides how the answer comes, one for each way.
BODIES: dict[str, list[dict[str, Any]]] = {
    "AgentChange": [{"instructions": "be brief"}],
    "AgentRequest": [{"name": "{new}", "model": "kgents:echo"}],
    "ApiKeyRequest": [{"name": "key", "role": "viewer"}],
    "ChatRequest": [{"model": "", "messages": _MESSAGES, "stream": stream} for stream in (False, True)],
    "ResponsesRequest": [
        {"model": "", "input": "hello", "previous_response_id": "", **way}
        for way in ({}, {"stream": True}, {"background": True})
    ],
    "InvoiceChange": [{"status": "void"}],
    "PlanRequest": [{"name": "{new}", "currency": "eur"}],
    "RotateRequest": [{"overlap_seconds": 86_400}],
    "RunRequest": [{"input": "hello", "mode": mode} for mode in ("wait", "stream", "background")],
    "SessionRequest": [{"agent": ""}],
    "StripeEvent": [{"id": "evt_1", "type": "invoice.paid", "data": {}}],
    "SubscriptionRequest": [{"plan": "plan_01ARZ3NDEKTSV4RRFFQ69G5FAV"}],
    "TenantChange": [{"name": "taken over", "status": "suspended"}],
    "TenantRequest": [{"name": "one more"}],
}

# Operations of the platform's administrators, which tenants' keys are refused with 403.
PLATFORM_PATHS = ("/v1/tenants", "/v1/plans", "/v1/revenue")
