"""What a run needs before it starts: its history, its model, and the worst case of its next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from kgents.agents.conversation import from_chat, parameters_of, settings_of
from kgents.agents.model import AgentDefinition, Overrides, Run
from kgents.agents.models.registry import ModelRegistry
from kgents.agents.tools.builtin import BUILTINS
from kgents.usage.model import Amounts


@dataclass(slots=True)
class Work:
    """A run in progress: everything that its next step depends on."""

    run: Run
    definition: AgentDefinition
    overrides: Overrides
    model: Model
    settings: ModelSettings
    history: list[ModelMessage]
    new_from: int
    step: int = 0
    resumed: bool = False
    callers_tools: frozenset[str] = field(default_factory=frozenset)
    _without_tools: ModelRequestParameters | None = None

    def parameters(self, tools: Sequence[ToolDefinition]) -> ModelRequestParameters:
        """The model request's parameters with the agent's tools as they are now."""
        if tools:
            return parameters_of(self.definition, self.overrides, tools, self.model)
        if self._without_tools is None:
            self._without_tools = parameters_of(self.definition, self.overrides, (), self.model)
        return self._without_tools


_NONE = Overrides()


def input_of(messages: Sequence[dict[str, Any]], overrides: Overrides) -> dict[str, Any]:
    """A run's input as it is recorded."""
    if overrides == _NONE:
        return {"messages": list(messages)}
    plain = {name: value for name, value in overrides._asdict().items() if value != getattr(_NONE, name)}
    return {"messages": list(messages), "overrides": plain}


def overrides_of(run_input: dict[str, Any]) -> Overrides:
    """The overrides of a recorded input."""
    if not run_input.get("overrides"):
        return _NONE
    plain = dict(run_input["overrides"])
    for name in ("stop", "tools"):
        if name in plain:
            plain[name] = tuple(plain[name])
    return Overrides(**plain)


class Planner:
    """Makes Work of a run's record, and estimates what its next step may use at worst."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def work(
        self,
        run: Run,
        definition: AgentDefinition,
        earlier: Sequence[ModelMessage] = (),
        steps: Sequence[ModelMessage] = (),
    ) -> Work:
        """The work of a run after `earlier` messages of its session and the recorded `steps` of its own.

        Raises Unprocessable when the model is not configured, InvalidRequest when the messages don't fit together.
        """
        overrides = overrides_of(run.input)
        said = from_chat(run.input["messages"], earlier)
        history = [*earlier, *said, *steps]
        return Work(
            run=run,
            definition=definition,
            overrides=overrides,
            model=self._registry.resolve(definition.model),
            settings=settings_of(definition, overrides),
            history=history,
            new_from=len(earlier),
            step=len(steps),
            resumed=run.attempt > 1,
            callers_tools=frozenset(tool["name"] for tool in overrides.tools),
        )

    def worst_case(self, work: Work, tools: Sequence[ToolDefinition] | None = None, *, first: bool) -> Amounts:
        """What the next model call may use at worst, with the run itself when it is the `first` call.

        Without `tools` only the agent's built-in ones are known.
        """
        if tools is None:
            named = (tool["name"] for tool in work.definition.tools if tool["type"] == "builtin")
            tools = [BUILTINS[name].definition for name in named if name in BUILTINS]
        tokens_in, tokens_out = self._registry.estimate(
            work.definition.model, work.history, work.settings, work.parameters(tools)
        )
        return Amounts(int(first), tokens_in, tokens_out, 0)
