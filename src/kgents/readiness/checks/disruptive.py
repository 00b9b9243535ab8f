"""What only shows when something is broken on purpose, under load. These run alone, and only where one asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from kgents.deploy.findings import is_ready
from kgents.errors import Unavailable
from kgents.readiness.checks import cluster
from kgents.readiness.model import Broken, Found, NotShown
from kgents.readiness.steady import Steady
from kgents.readiness.target import Target

RATE = 10.0  # requests a second
BEFORE, AFTER = 3.0, 5.0  # seconds of load around what is done
RECOVERED = 120.0  # seconds until everything is as before


def killed_pod(target: Target) -> Found:
    """A pod of the API is deleted under load; no request fails, and another pod takes its place."""

    def kill() -> None:
        pods = cluster.pods_of(target, "deployment/kgents-api")
        if len(pods) < 2:
            raise Broken(f"The API has {len(pods)} pod that serves, so that killing one is an outage.")
        target.kubectl.delete("pod", target.namespace, pods[0]["metadata"]["name"])

    return _under_load(target, kill, "a pod of the API was deleted")


def rolling_restart(target: Target) -> Found:
    """All pods of the API are replaced under load, one after another; no request fails."""
    return _under_load(
        target,
        lambda: target.kubectl.restart(target.namespace, "deployment/kgents-api"),
        "all pods of the API were replaced",
    )


def _under_load(target: Target, do: Callable[[], None], what: str) -> Found:
    images = target.images
    with Steady(_way_in(target), target.tenant().key, rate=RATE) as load:
        time.sleep(BEFORE)
        do()
        _recovered(target)
        time.sleep(AFTER)
    seen = {"sent": load.sent, "failed": len(load.failed), "first": load.failed[:3], "images": images}
    if load.failed:
        raise Broken(f"{len(load.failed)} of {load.sent} requests failed while {what}: {load.failed[0]}.", seen)
    if load.lacking:
        raise NotShown(f"{load.lacking} So it is not known whether a request fails while {what}.")
    return Found(f"None of {load.sent} requests failed while {what}.", seen)


def _way_in(target: Target) -> str:
    if target.url:
        return target.base
    try:
        return str(target.entrance)
    except (NotShown, Unavailable):
        raise NotShown(
            "A port that kubectl forwards ends with its pod, so this needs another way in: a gateway, or --url."
        ) from None


def _recovered(target: Target) -> None:
    deadline = time.monotonic() + RECOVERED
    while not is_ready(target.object("deployment", "kgents-api")):
        if time.monotonic() > deadline:
            raise Broken(f"The API was not ready again after {RECOVERED:.0f} s.")
        time.sleep(1.0)
