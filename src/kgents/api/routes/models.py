"""`GET /v1/models`: the tenant's agents, as OpenAI's SDKs list models."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel

from kgents.agents import service
from kgents.api.call import AgentsRead, Call
from kgents.api.json_route import JsonRoute
from kgents.api.problems import OPENAI_PROBLEMS
from kgents.api.unit import read
from kgents.clock import SECOND

router = APIRouter(tags=["OpenAI-compatible"], route_class=JsonRoute)

MOST = 1000


class Model(BaseModel):
    """An agent, as a model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """The tenant's agents, as models."""

    object: Literal["list"] = "list"
    data: list[Model]


def show(call: Call, name: str, created_at: int) -> Model:
    """An agent as a model, under its name."""
    return Model(id=name, created=created_at // SECOND, owned_by=call.tenant_id)


@router.get(
    "/v1/models", operation_id="list_models", summary="List models", response_model=ModelList, responses=OPENAI_PROBLEMS
)
async def list_models(call: AgentsRead) -> ModelList:
    """The tenant's agents (the first 1,000; GET /v1/agents pages through all)."""
    found = await read(call, lambda connection: service.agent_names(connection, call.tenant_id, MOST))
    return ModelList(data=[show(call, *agent) for agent in found])


@router.get(
    "/v1/models/{model}",
    operation_id="get_model",
    summary="Get a model",
    response_model=Model,
    responses=OPENAI_PROBLEMS,
)
async def get_model(call: AgentsRead, model: Annotated[str, Path(max_length=128)]) -> Model:
    """The agent of this name or id."""
    found = await read(call, lambda connection: service.get_agent(connection, call.tenant_id, model))
    return show(call, found.name, found.created_at)
