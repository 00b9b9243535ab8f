"""Secrets and texts stand where they belong and nowhere else, whatever works or fails."""

from __future__ import annotations

import base64
import json
import time
import urllib.parse
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.canaries import Canaries, Finding
from tests.faults.canary_drive import PARTS, Driver, Part, overheard
from tests.faults.places import EVERYTHING, NO_TEXT, TOLD_AT_START, Place, Record, columns, files, search
from tests.faults.quoting import collector, quoting_server
from tests.faults.systems import FULL, running
from tests.support.cli import Cli
from tests.support.log_collector import sent
from tests.support.results import record as keep

COMMAND = "tests/faults/test_canaries.py"
DIALECTS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


def told_by_command(cli: Cli, canaries: Canaries, url: str) -> Iterable[Place]:
    """What the command line says of keys that do not work, with a traceback."""
    wrong = canaries.key("key of the command line", f"kg_{'1' * 16}_{'CommandLineKey' * 3}")
    for address, command in (
        (url, ("agent", "list")),
        (url, ("tenant", "list")),
        (url, ("chat", "echo", "hello")),
        ("http://127.0.0.1:9", ("run", "list")),
    ):
        done = cli("--debug", *command, KGENTS_URL=address, KGENTS_API_KEY=wrong, KGENTS_ADMIN_KEY=wrong)
        yield Place(f"command:{' '.join(command)}", (done.stdout + done.stderr).encode(), EVERYTHING)


def find(
    dialect: str, folder: Path, parts: Iterable[Part], *, leaks: str = ""
) -> tuple[list[Finding], dict[str, int], Canaries, set[int]]:
    """Drive the canaries, and look for them everywhere: what was found, how much was searched of each kind of place,
    for what, and which statuses were answered.
    """
    canaries, heard = Canaries(), Record()
    with quoting_server() as url, collector() as (traces_url, heard.traces):
        secrets = {
            name: canaries.secret(f"API key of the provider {name}") for name in ("quoting", "claude", "gemini", "dead")
        }
        password = canaries.secret("password in a provider's URL", "PassWordOfAProviderUrl" * 2)
        providers = {
            "quoting": {"kind": "openai", "base_url": f"{url}/v1"},
            "claude": {"kind": "anthropic", "base_url": url},
            "gemini": {"kind": "google", "base_url": url},
            "dead": {"kind": "openai", "base_url": f"http://user:{password}@127.0.0.1:9/v1"},
        }
        environment = {
            "KGENTS_LOG_LEVEL": "debug",
            "KGENTS_EGRESS_ALLOW": '["127.0.0.0/8"]',
            "KGENTS_PROVIDERS": json.dumps({name: {**of, "api_key": secrets[name]} for name, of in providers.items()}),
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces_url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "LEAKS": leaks,
        }
        with running(dialect, folder / "data", module="tests.faults.leaks", **environment) as system:
            data = system.up.data
            kept = {name: json.loads((data / name).read_text()) for name in ("secrets.json", "nats/endpoint.json")}
            canaries.secret("pepper", kept["secrets.json"]["pepper"])
            canaries.secret("meter token", kept["secrets.json"]["meter_token"])
            canaries.secret("NATS password", kept["nats/endpoint.json"]["password"])
            if system.postgres is not None:
                address = system.environment["KGENTS_DATABASE_URL"]
                canaries.secret("database password", address.partition("@")[0].rpartition(":")[2])
                if leaks:
                    system.postgres.sql(["ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()"])
            with overheard(system, heard.bus), closing(Driver(system, canaries, heard, url)) as driver:
                for part in parts:
                    began = time.monotonic()
                    part(driver)
                    print(f"{part.__name__}: {time.monotonic() - began:.1f} s")
                system.up.settled(60)
            heard.places += told_by_command(Cli(folder), canaries, system.up.url)
            heard.places += columns(system)
            system.up.stop()
            first, _, rest = system.up.said.partition("\n")
            heard.places += [
                Place("output", first.encode(), EVERYTHING, TOLD_AT_START),
                Place("output", rest.encode(), EVERYTHING),
            ]
            logs = sorted((data / "logs").iterdir())
            heard.places += [Place("log store", each, EVERYTHING) for each in sent(folder / "collector", logs)]
            findings, searched = search(canaries, [*heard.heard(), *files(system)])
    return findings, searched, canaries, {response.status_code for _, response in heard.answers}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_secret_and_no_text_is_found_where_it_does_not_belong(tmp_path: Path, dialect: str) -> None:
    findings, searched, canaries, statuses = find(dialect, tmp_path, PARTS)
    print(dialect, len(canaries.all), searched, sorted(statuses))
    keep(
        "Secrets and texts stay where they belong",
        COMMAND,
        f"{dialect}: {len(canaries.all)} canaries in every form (plain, base64, hexadecimal, URL- and JSON-escaped) "
        f"searched for in {sum(searched.values()) / 1e6:.1f} MB of {len(searched)} kinds of places "
        f"({', '.join(sorted(searched))}): {len(findings)} found",
    )
    assert not findings, "\n".join(map(str, findings))
    assert statuses >= ANSWERED, "the drive has not gone every way"


ANSWERED = {200, 201, 400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 502, 503, 504}
LEAKING = {
    *("log", "metrics", "trace", "error", "health", "page", "audit log", "column", "database file", "bus"),
    *("JetStream file", "meter file", "NATS log", "command line", "log store"),
}


@pytest.mark.parametrize("dialect", DIALECTS if FULL else ["sqlite"])
def test_a_leak_into_each_kind_of_place_is_found(tmp_path: Path, dialect: str) -> None:
    def use(driver: Driver) -> None:
        driver.agent("echo", "kgents:echo")
        driver.every_way("echo", "echo")
        driver.ask("GET", "/v1/agents/none")

        driver.ask("POST", "/v1/api-keys", {"name": "audited", "role": "viewer"})

    findings, searched, _, _ = find(dialect, tmp_path, [use, Driver.look], leaks="all")
    found = {finding.kind_of_place for finding in findings}
    forms = {finding.form.partition(",")[0] for finding in findings}
    wanted = LEAKING | ({"PostgreSQL log"} if dialect == "postgresql" else set())
    print(dialect, sorted(found), sorted(forms), searched)
    keep(
        "Secrets and texts stay where they belong, control",
        COMMAND,
        f"{dialect}: leaks planted into {len(wanted)} kinds of places, found in {len(wanted & found)} of them, "
        f"in the forms {', '.join(sorted(forms))}",
    )
    assert wanted <= found
    assert {"plain", "base64", "hexadecimal"} <= forms


def test_a_canary_is_found_in_every_form() -> None:
    canaries = Canaries()
    word = canaries.secret("s")
    for form, pattern in _written(word).items():
        assert canaries.find("here", b"before " + pattern + b" after", NO_TEXT), form
    assert not canaries.find("here", b"nothing of it", NO_TEXT)


def _written(word: str) -> dict[str, bytes]:
    return {
        "plain": word.encode(),
        "header": base64.b64encode(f"user:{word}".encode()),
        "base64 of JSON": base64.urlsafe_b64encode(json.dumps({"x": ["yy", word]}).encode()),
        "URL": urllib.parse.quote(word, safe="").encode(),
        "JSON": json.dumps(json.dumps(word)).encode(),
        "hexadecimal": word.encode().hex().encode(),
        "cut off": word[:40].encode(),
    }
