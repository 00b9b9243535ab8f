"""What goes wrong is one line that says what to do, and an exit status."""

from __future__ import annotations

import http.server
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.ports import free_port
from tests.support.up import Up


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of a web server that is not a kgents."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            status, body = {
                "/v1/agents": (200, b"<html>"),
                "/v1/api-keys": (200, b"[]"),
                "/v1/runs": (200, b"{}"),
                "/v1/usage": (302, b""),
                "/health/saas": (200, b'{"status": "ok"}'),
                "/v1/tenant": (200, b"{}"),
            }.get(path, (404, b"nothing here"))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "https://elsewhere.example.com/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_nothing_at_the_address(cli: Cli) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    assert "kgents health" in cli("agent", "list", KGENTS_URL=dead).complaint
    assert "kgents health" in cli("chat", "echo", "hi", KGENTS_URL=dead).complaint
    assert "kgents health" in cli("run", "events", "run_x", KGENTS_URL=dead).complaint
    assert "kgents up" in cli("health", "--url", dead).complaint


@pytest.mark.parametrize(
    "command",
    ["agent list", "key list", "run list", "usage show", "tenant list", "health", "run get x", "run events x"],
)
def test_something_else_at_the_address(cli: Cli, elsewhere: str, command: str) -> None:
    complaint = cli(*command.split(), KGENTS_URL=elsewhere).complaint
    assert elsewhere in complaint
    assert "kgents context list" in complaint


def test_login_at_something_else_keeps_nothing(stranger: Cli, elsewhere: str) -> None:
    assert "not from a kgents" in stranger("login", elsewhere, KGENTS_API_KEY="kg_a_b").complaint
    assert stranger.json("context", "list") == []


def test_a_quota_that_is_used_up(tenant_cli: Callable[..., Cli]) -> None:
    cli = tenant_cli("--quota", "runs=1")
    assert cli("run", "create", "echo", "one").status == 0
    for command in (("run", "create", "echo", "two"), ("chat", "echo", "two")):
        complaint = cli(*command).complaint
        assert "quota of runs is 1" in complaint
        assert "kgents usage balance" in complaint


def test_too_many_requests(tenant_cli: Callable[..., Cli]) -> None:
    cli = tenant_cli("--requests-per-minute", "2")
    complaints = [done for done in (cli("agent", "list") for _ in range(6)) if done.status]
    assert complaints
    assert "requests a minute" in complaints[-1].complaint
    assert " s" in complaints[-1].complaint


def test_another_tenants_object_does_not_exist(tenant_cli: Callable[..., Cli], cli: Cli) -> None:
    run = cli.json("run", "create", "echo", "mine")["id"]
    other = tenant_cli()
    for command in (("run", "get", run), ("run", "events", run), ("run", "cancel", run)):
        assert "There is no run" in other(*command).complaint
        assert "kgents run list" in other(*command).complaint


def test_a_wrong_key_is_not_repeated(cli: Cli) -> None:
    key = "kg_abcdefghijklmnop_very-secret-indeed"
    for bad in (key, key + "\n", key + "ü"):
        complaint = cli("agent", "list", KGENTS_API_KEY=bad).complaint
        assert "kgents login URL" in complaint
        assert "very-secret" not in complaint


@pytest.mark.parametrize(
    "command",
    [
        "frob",
        "tenant frob",
        "agent create",
        "agent get x y",
        "agent update echo",
        "agent get ..",
        "tenant update ten_platform",
        "tenant update ten_platform --status gone",
        "tenant create x --quota runs",
        "tenant create x --quota runs=-1",
        "tenant create x --quota runs=²",
        "tenant create x --requests-per-minute 0",
        "key create x --role king",
        "key create x --role owner --scope runs:read",
        "key create x --expires-at tomorrow",
        "key create x --expires-at 2027-01-01T00:00:00",
        "key rotate x --overlap -1",
        "run list --most 0",
        "run list --status lost",
        "run events x --after -1",
        "usage show --window week",
        "usage show --meter cpu",
        "usage show --group-by tenant",
        "usage show --from yesterday",
        "usage reconcile --from 2026-01-01",
        "usage reconcile --from 2026-13-01 --to 2026-01-02",
        "usage reconcile --from 2026-01-02 --to 2026-01-01",
        "usage reconcile --from 2026-01-02 --to 2026-01-02",
        "agent list -o xml",
        "up --port 65536",
        "serve frob",
        "completion tcsh",
    ],
)
def test_a_wrong_use_exits_with_2_and_shows_the_help_to_read(cli: Cli, command: str) -> None:
    done = cli(*command.split())
    assert (done.status, done.stdout) == (2, "")
    assert "--help" in done.stderr
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_on_our_side_is_a_line_and_with_debug_a_traceback(cli: Cli) -> None:
    # An installation without its YAML library stands for any defect.
    broken = {"PYTHONPATH": str(cli.folder)}
    (cli.folder / "yaml.py").write_text("raise RuntimeError('broken')")
    assert cli("agent", "list", "-o", "yaml", **broken).complaint == (
        "kgents: an error on our side: RuntimeError; run again with --debug"
    )
    for command in (("--debug", "agent", "list", "-o", "yaml"), ("agent", "list", "-o", "yaml", "--debug")):
        done = cli(*command, **broken)
        assert done.status == 1
        assert "Traceback (most recent call last)" in done.stderr
        assert "RuntimeError: broken" in done.stderr


def test_a_file_that_cannot_be_used_is_the_users_error(stranger: Cli, tmp_path: Path) -> None:
    (tmp_path / "logs" / "api.jsonl").mkdir(parents=True)
    assert stranger("logs", "--data", tmp_path).complaint == (
        f"kgents: {tmp_path / 'logs' / 'api.jsonl'}: Is a directory. Check the path and its permissions, and try again."
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KGENTS_MAX_BODY_BYTES", "-5"),
        ("KGENTS_MAX_JSON_DEPTH", "0"),
        ("KGENTS_MAX_TENANT_REQUESTS", "0"),
        ("KGENTS_SHUTDOWN_DELAY", "inf"),
        ("KGENTS_SHUTDOWN_GRACE", "-1"),
        ("KGENTS_RUN_LEASE", "nan"),
        ("KGENTS_RUN_LEASE", "0"),
        ("KGENTS_IDEMPOTENCY_TTL", "-1"),
        ("KGENTS_DEFAULT_REQUESTS_PER_MINUTE", "-1"),
        ("KGENTS_DEFAULT_TOKENS_PER_MINUTE", "0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(stranger: Cli, name: str, value: str) -> None:
    assert f"The setting {name} can't be used" in stranger("migrate", **{name: value}).complaint


def test_a_folder_of_secrets_that_is_none(stranger: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, why in ((tmp_path / "file", "Not a directory"), (tmp_path / "none", "No such file or directory")):
        complaint = stranger("migrate", KGENTS_SECRETS_DIR=str(folder)).complaint
        assert f"{folder}, can't be read: {why}. Correct KGENTS_SECRETS_DIR" in complaint


def test_the_file_of_a_secret_that_cannot_be_read(stranger: Cli, tmp_path: Path) -> None:
    path = tmp_path / "KGENTS_PEPPER"
    path.write_bytes(b"\xff")
    assert f"{path}, can't be read: it is not UTF-8" in stranger("migrate", KGENTS_SECRETS_DIR=str(tmp_path)).complaint
    path.unlink()
    path.mkdir()
    assert f"{path}, can't be read: Is a directory" in stranger("migrate", KGENTS_SECRETS_DIR=str(tmp_path)).complaint


def test_a_definition_that_is_nested_too_deeply(stranger: Cli, tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    done = stranger("agent", "create", "x", "--file", tmp_path / "deep.json")
    assert (done.status, "deep.json is nested too deeply" in done.stderr) == (2, True)


@pytest.mark.parametrize(("host", "why"), [("999.1.1.1", "not known"), ("192.0.2.1", "assign"), ("a" * 70, "label")])
def test_a_host_that_cannot_be_listened_on(stranger: Cli, tmp_path: Path, host: str, why: str) -> None:
    complaint = stranger("up", "--host", host, "--data", tmp_path / "data").complaint
    assert why in complaint
    assert "--host" in complaint
    assert "--port" not in complaint


def test_debug_after_two_dashes_is_text(cli: Cli) -> None:
    assert cli("chat", "echo", "--", "--debug").stdout == "--debug\n"


def test_an_expected_error_has_a_traceback_with_debug_only(cli: Cli) -> None:
    assert "Traceback" not in cli("agent", "get", "nope").stderr
    assert "Traceback" in cli("--debug", "agent", "get", "nope").stderr


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(cli: Cli) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    proxies = {"http_proxy": dead, "HTTP_PROXY": dead, "ALL_PROXY": dead, "no_proxy": "UNSET", "NO_PROXY": "UNSET"}
    assert cli("agent", "list", **proxies).status == 0
    assert cli("health", **proxies).status == 0


@pytest.mark.parametrize("proxy", ["garbage://x", "socks5://x", "http://[::1"])
def test_a_proxy_of_the_environment_that_is_none(stranger: Cli, proxy: str) -> None:
    complaint = stranger("health", "--url", "https://kgents.invalid", HTTPS_PROXY=proxy).complaint
    assert "The proxy of the environment (HTTPS_PROXY" in complaint
    assert "kgents.invalid" not in complaint


def test_a_lost_connection_is_taken_up_again(tenant_cli: Callable[..., Cli], own_up: Up) -> None:
    cli = Cli(tenant_cli().folder, KGENTS_URL=own_up.url, KGENTS_API_KEY=own_up.key)
    run = cli.json("run", "create", "echo", "/sleep 1 one two three four", "--background")["id"]
    with cli.start("run", "events", run) as process:
        assert process.stdout is not None
        assert b"run.created" in process.stdout.readline()
        os.kill(own_up.pid("api"), signal.SIGKILL)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    assert b"run.completed" in rest
    ids = [line.split(b'"id": "')[1].split(b'"')[0] for line in rest.splitlines()]
    assert len(ids) == len(set(ids))
