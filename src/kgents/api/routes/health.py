"""Liveness and readiness, on the API's own port too; and the pages that explain the API."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict

from kgents.api.problems import PROBLEMS
from kgents.api.services import Services

router = APIRouter(tags=["Health"])

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
TEXT_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request was refused", "content": _PROBLEM},
}


class Live(BaseModel):
    """The process lives."""

    status: str


class HealthReport(BaseModel):
    """The health of the process and of each dependency."""

    model_config = ConfigDict(extra="allow")

    status: str
    components: dict[str, dict[str, object]]


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


@router.get("/health", operation_id="get_health", summary="Liveness", response_model=Live, responses=PROBLEMS)
async def get_health() -> Live:
    """200 for as long as this process lives; nothing else is asked."""
    return Live(status="ok")


@router.get(
    "/health/saas",
    operation_id="get_saas_health",
    summary="Readiness, with every dependency",
    response_model=HealthReport,
    responses={503: {"model": HealthReport, "description": "This process can't serve safely"}, **PROBLEMS},
)
async def get_saas_health(request: Request, response: Response) -> HealthReport:
    """What each dependency answered just now. 200 with `degraded` where work is buffered."""
    report = await _services(request).health.report()
    response.status_code = report.http_status
    return HealthReport.model_validate(report.document())


@router.get(
    "/livez",
    operation_id="livez",
    summary="Liveness, for Kubernetes",
    response_class=PlainTextResponse,
    responses=TEXT_PROBLEMS,
)
async def livez(verbose: str | None = None) -> PlainTextResponse:
    """As /health, in Kubernetes' form."""
    return PlainTextResponse("[+]process ok\nlivez ok\n" if verbose is not None else "ok")


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Readiness, for Kubernetes",
    response_class=PlainTextResponse,
    responses={503: {"description": "This process can't serve safely", "content": {"text/plain": {}}}, **TEXT_PROBLEMS},
)
async def readyz(request: Request, verbose: str | None = None) -> PlainTextResponse:
    """As /health/saas, in Kubernetes' form; with `verbose`, a line for each check."""
    report = await _services(request).health.report()
    short = "ok" if report.http_status == 200 else "unavailable"
    return PlainTextResponse(report.text() if verbose is not None else short, status_code=report.http_status)
