"""The yardstick: a bare FastAPI route with a validated POST and a typed answer, on kgents' own server settings.

`python -m bench.bare FD` serves it on a listening socket that it inherits.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import time
from typing import Annotated, Literal

import uvicorn
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel, Field


class Message(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=1_000_000)]


class ChatRequest(BaseModel):
    """What is asked."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=2048)]
    stream: bool = False
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None


class Choice(BaseModel):
    """One answer."""

    index: int
    message: Message
    finish_reason: str


class Usage(BaseModel):
    """What it took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """What is answered."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


app = FastAPI()


@app.post("/v1/chat/completions")
async def chat(request: ChatRequest) -> ChatCompletion:
    """The last message, said back."""
    said = request.messages[-1].content
    tokens = len(said.split())
    answer = Choice(index=0, message=Message(role="assistant", content=said), finish_reason="stop")
    usage = Usage(prompt_tokens=tokens, completion_tokens=tokens, total_tokens=2 * tokens)
    return ChatCompletion(id="c1", created=int(time.time()), model=request.model, choices=[answer], usage=usage)


def main() -> None:
    """Serve until a signal."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    config = uvicorn.Config(
        app,
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
