"""How a deployed kgents says that it is, asked the way that its users come: through the gateway, where there is one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kgents.deploy.findings import name_of
from kgents.deploy.kubectl import Kubectl, Object, Refused
from kgents.errors import Unavailable
from kgents.tls import trusted

if TYPE_CHECKING:
    import httpx2

PATH = "/health/saas"
LOOK = 1.0  # seconds between two tries
PATIENCE = 5.0  # seconds for an answer, which asks every dependency


@dataclass(frozen=True, slots=True)
class WayIn:
    """Where a gateway is reached, and by which host name it knows the installation ("" where it takes any)."""

    name: str
    address: str
    port: int
    tls: bool
    host: str

    @property
    def in_url(self) -> str:
        """The address as it stands in a URL: one of IPv6 in brackets (RFC 3986, section 3.2.2)."""
        return f"[{self.address}]" if ":" in self.address else self.address

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host or self.in_url}:{self.port}"


def report(kubectl: Kubectl, namespace: str, objects: Sequence[Object], *, seconds: float) -> tuple[str, Any]:
    """What /health/saas answers, and through what it was asked; tried for so many seconds until all is well.

    It is asked through the Gateway or the Ingress among the objects, else through the API server's proxy of the
    Service. Raises Unavailable where there is no answer, or one that is not `ok`.
    """
    deadline = time.monotonic() + seconds
    entrances = [each for each in objects if each["kind"] in ("Gateway", "Ingress")]
    while True:
        try:
            return ask(kubectl, namespace, entrances)
        except (Unavailable, Refused) as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"Everything is deployed, but {error.detail}") from None
        time.sleep(LOOK)


def ask(kubectl: Kubectl, namespace: str, entrances: Sequence[Object]) -> tuple[str, Any]:
    """What /health/saas answers just now, and through what it was asked: the first of the entrances, or the API
    server's proxy where there is none. Raises Unavailable where there is no answer, or one that is not `ok`.
    """
    if not entrances:
        way = "service/kgents-api"
        text = kubectl.raw(f"/api/v1/namespaces/{namespace}/services/kgents-api:http/proxy{PATH}")
    else:
        entrance = way_in(kubectl, namespace, entrances[0])
        way = f"{entrance.name} ({entrance})"
        text = _text(entrance)
    try:
        found = json.loads(text)
        status, components = found["status"], found["components"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise Unavailable(f"what answers {PATH} through {way} is not kgents: {text[:200]!r}.") from None
    if status != "ok":
        bad = [f"{name} {each['status']}" for name, each in components.items() if each["status"] != "connected"]
        raise Unavailable(f"{PATH} through {way} says {status} ({', '.join(bad)}).")
    return way, found


def way_in(kubectl: Kubectl, namespace: str, entrance: Object) -> WayIn:
    """Where a Gateway or an Ingress is reached. Raises Unavailable while it has no address."""
    name = entrance["metadata"]["name"]
    kind = "gateway.gateway.networking.k8s.io" if entrance["kind"] == "Gateway" else "ingress"
    live = kubectl.get(kind, namespace, name)
    found = next(_gateway(live) if entrance["kind"] == "Gateway" else _ingress(live), None) if live else None
    if found is None:
        raise Unavailable(
            f"{name_of(entrance)} has no address yet. Does a controller of its class run? "
            f"See: kubectl describe {kind} {name} --namespace={namespace}"
        )
    return found


def _gateway(live: Object) -> Iterator[WayIn]:
    listeners = sorted(live["spec"]["listeners"], key=lambda each: each["protocol"] != "HTTPS")
    for address in (live.get("status") or {}).get("addresses") or ():
        first = listeners[0]
        yield WayIn(
            name_of(live), address["value"], first["port"], first["protocol"] == "HTTPS", first.get("hostname", "")
        )


def _ingress(live: Object) -> Iterator[WayIn]:
    spec = live["spec"]
    tls = bool(spec.get("tls"))
    hosts = [*(host for each in spec.get("tls") or () for host in each.get("hosts") or ())]
    hosts += [rule["host"] for rule in spec.get("rules") or () if rule.get("host")]
    for address in ((live.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
        value = address.get("ip") or address["hostname"]
        yield WayIn(name_of(live), value, 443 if tls else 80, tls, hosts[0] if hosts else "")


def _text(way_in: WayIn) -> str:
    found = get(way_in, PATH)
    if found.status_code not in (200, 503):
        raise Unavailable(f"{PATH} through {way_in.name} ({way_in}) answers {found.status_code}.")
    return found.text


def get(way_in: WayIn, path: str, *, tls: bool | None = None, port: int | None = None) -> httpx2.Response:
    """What is answered to a GET through a gateway, by its host name and with its certificate, which may be from an
    authority in the file that SSL_CERT_FILE names. Raises Unavailable.
    """
    import httpx2

    scheme = "https" if (way_in.tls if tls is None else tls) else "http"
    try:
        with httpx2.Client(timeout=PATIENCE, trust_env=False, verify=trusted()) as client:
            return client.get(
                f"{scheme}://{way_in.in_url}:{port or way_in.port}{path}",
                headers={"Host": way_in.host} if way_in.host else {},
                extensions={"sni_hostname": way_in.host} if way_in.host else {},
            )
    except httpx2.HTTPError as error:
        raise Unavailable(f"{path} can't be reached through {way_in.name} ({way_in}): {error}.") from None
