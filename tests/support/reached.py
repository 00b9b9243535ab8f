"""A running kgents as its clients reach it, wherever it runs: on this machine (up.py) or in a cluster."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from functools import cache
from typing import Any

import httpx2

from tests.support.waiting import wait_until

METERS = ("runs", "input_tokens", "output_tokens", "tool_calls")


@cache
def trust() -> ssl.SSLContext:
    """What a client trusts by itself. To read it takes 50 ms of processor time, which each client would do anew."""
    return httpx2.create_ssl_context()


class Reached(ABC):
    """A kgents with its URL, the platform administrator's key, and the meter that it reports to."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the API answers."""

    @property
    @abstractmethod
    def admin_key(self) -> str:
        """The platform administrator's key."""

    @abstractmethod
    def meter(self) -> httpx2.Client:
        """A client of the meter."""

    @abstractmethod
    def metrics(self) -> list[str]:
        """What each process of the API and of the workers exposes."""

    @abstractmethod
    def logs(self) -> str:
        """What its processes have logged."""

    def client(self, key: str) -> httpx2.Client:
        """An HTTP client with a key."""
        headers = {"Authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, verify=trust())

    def admin(self) -> httpx2.Client:
        """An HTTP client with the platform administrator's key."""
        return self.client(self.admin_key)

    def health(self) -> dict[str, Any]:
        """What /health/saas says now."""
        answer = httpx2.get(f"{self.url}/health/saas", timeout=10, trust_env=False, verify=trust())
        page: dict[str, Any] = answer.json()
        return page

    def component(self, name: str) -> str:
        """The status of a component on the health page."""
        return str(self.health()["components"][name]["status"])

    def settled(self, seconds: float = 30.0) -> None:
        """Wait until the usage pipeline is empty."""

        def empty() -> bool:
            components = self.health()["components"]
            return not any(components[name]["backlog"] for name in ("sql", "nats"))

        wait_until(empty, seconds=seconds, what="the usage pipeline is empty")

    def metered(self, tenant: str) -> dict[str, int]:
        """What the meter has counted for a tenant."""
        totals = dict.fromkeys(METERS, 0)
        with self.meter() as meter:
            for name in METERS:
                answer = meter.get(f"/api/v1/meters/{name}/query", params={"subject": tenant}).raise_for_status()
                totals[name] = sum(row["value"] for row in answer.json()["data"])
        return totals
