"""schemathesis over a running kgents: every check, every phase; and what its report says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from kgents.api.response_shapes import run_id_of
from kgents.tenants.model import PLATFORM
from tests.isolation.catalog import PLATFORM_PATHS
from tests.support.up import UNMEASURED, Up
from tests.support.waiting import wait_until

HERE = Path(__file__).parent
Caller = str
CALLERS: tuple[Caller, ...] = ("owner", "admin")
PHASES = ("examples", "coverage", "fuzzing", "stateful")


@dataclass(slots=True)
class Fuzzed:
    """What a run of schemathesis came to. `cases` are those that it generated and checked, by its own report.

    `accepted` and `unauthenticated` count, by operation, the requests with a caller's key that were answered with 2xx,
    and those with none of the callers' keys; `let_in` are those of the latter that were not refused as they must be.
    """

    seed: int
    cases: int = 0
    failures: list[str] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    unauthenticated: Counter[str] = field(default_factory=Counter)
    let_in: list[str] = field(default_factory=list)
    server_errors: list[str] = field(default_factory=list)
    steps: int = 0  # of the stateful phase, taken by following a link
    said: str = ""

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not (self.failures or self.let_in or self.server_errors)

    def complaint(self) -> str:
        """What was found, and how to have it again."""
        found = [*self.failures, *self.let_in[:10], *self.server_errors[:10]]
        return f"KGENTS_SEED={self.seed}: " + "; ".join(found) + f"\n{self.said[:8000]}"


def fuzz(up: Up, caller: Caller, seed: int, examples: int, folder: Path, only: Sequence[str] = ()) -> Fuzzed:
    """Have schemathesis call a kgents with so many examples of each operation, or only of those named."""
    folder.mkdir()
    keys, kept = _people(up)
    config = folder / "schemathesis.toml"
    config.write_text(_config(folder, keys, caller, _things(up, keys[caller])))
    report, events = folder / "report.json", folder / "events.ndjson"
    command: list[str | Path] = [Path(sys.executable).with_name("schemathesis"), "--config-file", config, "run"]
    command += [f"{up.url}/openapi.json", "--checks", "all", "--phases", ",".join(PHASES), "--seed", str(seed)]
    command += ["--max-examples", str(examples), "--report", "json,ndjson", "--output-sanitize", "false"]
    command += ["--report-json-path", report, "--report-ndjson-path", events, "--continue-on-failure"]
    for operation in only:
        command += ["--include-operation-id", operation]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=3600,
        cwd=folder,
        env={**os.environ, **UNMEASURED, "KGENTS_FUZZ_KEPT": " ".join(kept)},
    )
    said = "\n".join(line[:500] for line in done.stdout.splitlines()).partition("FAILURES")[2].partition("WARNINGS")[0]
    fuzzed = Fuzzed(seed, said=said + done.stderr[-2000:])
    _read_report(fuzzed, json.loads(report.read_text()) if report.exists() else None, done.returncode)
    if events.exists():
        for method, path, interaction, linked in _interactions(events):
            _read_interaction(fuzzed, f"{method} {path}", interaction, set(keys.values()))
            fuzzed.steps += linked
        events.unlink()  # five kilobytes a case
    return fuzzed


def _people(up: Up) -> tuple[dict[str, str], list[str]]:
    """The callers' keys, with one of another tenant; and the ids of all that is theirs and must last."""
    with up.client() as owner, up.admin() as admin:
        other = admin.post("/v1/tenants", json={"name": f"stranger-{os.urandom(4).hex()}"}).json()["id"]
        made = admin.post(f"/v1/tenants/{other}/api-keys", json={"name": "k", "role": "owner"}).json()
        admin.post("/v1/agents", json={"name": "echo", "model": "kgents:echo"})
        agents = [client.get("/v1/agents/echo").json()["id"] for client in (owner, admin)]
        tenants = [client.get("/v1/tenant").json()["id"] for client in (owner, admin)]
    keys = {"owner": up.key, "admin": str(up.facts["admin_key"]), "stranger": str(made["token"])}
    return keys, [*(key.split("_")[1] for key in keys.values()), *tenants, other, *agents, "echo"]


def _things(up: Up, key: str) -> dict[str, list[str]]:
    """Things for requests that are seldom made up rightly, the caller's but for tenants, by the configuration's names
    of them.
    """
    ended, running = ({"model": "echo", "input": text, "background": True} for text in ("hello", "/sleep 30 a b c d e"))
    made: dict[str, tuple[str, dict[str, Any]]] = {
        "made_agents": ("/v1/agents", {"name": "", "model": "kgents:echo"}),
        "keys": ("/v1/api-keys", {"name": "", "role": "viewer"}),
        "sessions": ("/v1/sessions", {"agent": "echo"}),
        "tenants": ("/v1/tenants", {"name": ""}),
        "plans": ("/v1/plans", {"name": "", "currency": "eur"}),
        "responses": ("/v1/responses", ended),
        "runs": ("/v1/responses", ended),
        "running_responses": ("/v1/responses", running),
        "running_runs": ("/v1/responses", running),
    }
    found: dict[str, list[str]] = {}
    with up.client(key) as caller, up.admin() as admin:
        for name, (path, body) in made.items():
            found[name] = []
            for number in range(8):
                named = {**body, "name": f"made-{number}"} if "name" in body else body
                answer = (admin if path in PLATFORM_PATHS else caller).post(path, json=named)
                answer.raise_for_status()
                found[name].append(str(answer.json()["id"]))
        own = caller.get("/v1/tenant").raise_for_status().json()["id"]
        found["billed"] = [own if own != PLATFORM else found["tenants"][0]]
        found["invoices"] = _invoices(admin, found["billed"][0], found["plans"])
        for tenant in found["tenants"][1:4]:
            _subscribe(admin, tenant, found["plans"][0])
    for name in ("runs", "running_runs"):
        found[name] = [run_id_of(response) for response in found[name]]
    return found


def _subscribe(admin: httpx2.Client, tenant: str, plan: str) -> None:
    admin.put(f"/v1/tenants/{tenant}/subscription", json={"plan": plan}).raise_for_status()


def _invoices(admin: httpx2.Client, tenant: str, plans: list[str]) -> list[str]:
    """The ids of a tenant's invoices, each for a plan that it has left; on the last one it stays."""
    for plan in plans[:4]:
        _subscribe(admin, tenant, plan)
    path = f"/v1/tenants/{tenant}/invoices"

    def made() -> list[str]:
        found = [str(each["id"]) for each in admin.get(path).raise_for_status().json()["data"]]
        return found if len(found) == 3 else []

    found: list[str] = wait_until(made, seconds=30, what="the invoices are made")
    return found


def _config(folder: Path, keys: dict[str, str], caller: Caller, values: dict[str, list[str]]) -> str:
    """The configuration, in which one caller asks and another must not see what is the first one's."""
    people = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]}
        for name, key in keys.items()
    ]
    (folder / "people.json").write_text(json.dumps({"auth": people}))
    peers = [caller, "stranger"]
    dictionaries = "".join(f"\n[dictionaries.{name}]\nvalues = {json.dumps(ids)}\n" for name, ids in values.items())
    head = f"hooks = {json.dumps(str(HERE / 'hooks.py'))}\n[auth.wfc]\nuser = {json.dumps(caller)}\n"
    head += f"path = {json.dumps(str(folder / 'people.json'))}\npeers = {json.dumps(peers)}\n"
    return head + (HERE / "schemathesis.toml").read_text() + dictionaries


def _read_report(fuzzed: Fuzzed, report: dict[str, Any] | None, status: int) -> None:
    if report is None or not report["complete"]:
        fuzzed.failures.append(f"schemathesis did not come to an end (exit status {status})")
        return
    cases = report["test_cases"]
    fuzzed.cases = cases["generated"] - cases["without_checks"] - cases["errored"]
    fuzzed.failures += [f"{group['title']}: {', '.join(group['operations'])}" for group in report["failures"]]
    fuzzed.failures += [f"schemathesis: {group['title']}" for group in report["errors"]]
    fuzzed.failures += [
        f"the {name} phase was left out"
        for name in PHASES
        if report["phases"][name]["status"] in ("skip", "interrupted")
    ]
    if status and not fuzzed.failures:
        fuzzed.failures.append(f"schemathesis ended with exit status {status}")


def _interactions(events: Path) -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """Each answered request: method and path of its operation, itself, and whether a link led to it."""
    with events.open() as lines:
        for line in lines:
            event = json.loads(line)
            if "ScenarioFinished" not in event:
                continue
            recorder = event["ScenarioFinished"]["recorder"]
            for name, interaction in recorder.get("interactions", {}).items():
                case = recorder["cases"].get(name)
                if case and interaction.get("response"):
                    value = case["value"]
                    yield value["method"], value["path"], interaction, bool(case.get("is_transition_applied"))


def _read_interaction(fuzzed: Fuzzed, operation: str, interaction: dict[str, Any], keys: set[str]) -> None:
    request, status = interaction["request"], interaction["response"]["status_code"]
    told = f"{request['method']} {request['uri']} was answered {status}"
    if status >= 500:
        fuzzed.server_errors.append(told)
    if not urlsplit(request["uri"]).path.startswith("/v1/"):
        return
    headers = {name.lower(): values for name, values in request["headers"].items()}
    if any(value.removeprefix("Bearer ") in keys for value in headers.get("authorization", ())):
        fuzzed.accepted[operation] += 200 <= status < 300
        return
    fuzzed.unauthenticated[operation] += 1
    if status not in (400, 401):  # 400: it is no HTTP request, or has a NUL byte in its path
        fuzzed.let_in.append(f"{told}, without a caller's key")
