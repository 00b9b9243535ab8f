"""Settings, from `KGENTS_*` environment variables or files of the same name in a secrets folder.

Lists and nested values use `__`: `KGENTS_PROVIDERS__openai__API_KEY=...`. A secret may come from a file: set
`KGENTS_SECRETS_DIR` to a folder (such as a mounted Kubernetes secret) whose file names are the variables' names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from kgents.errors import Unprocessable

Port = Annotated[int, Field(ge=0, le=65535)]


class ProviderSettings(BaseModel):
    """One model provider. `kind=openai` with a `base_url` reaches any OpenAI-compatible server (Ollama, vLLM)."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["openai", "anthropic", "google"] = "openai"
    api_key: SecretStr | None = None
    base_url: HttpUrl | None = None
    models: list[str] = Field(default_factory=list)


class Settings(BaseSettings):
    """What one kgents process needs to know. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="KGENTS_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        secrets_dir=os.environ.get("KGENTS_SECRETS_DIR"),
    )

    data_dir: Path = Path("data")
    host: str = "127.0.0.1"
    port: Port = 8080
    metrics_port: Port = 9464
    # Unique among the processes on a database: a process that starts takes one of the same name for dead, and its runs
    # for orphans. Without one it is `<host>-<kind>-<process id>`.
    process_name: str = ""

    database_url: str = ""
    database_owner_url: str = ""
    pepper: SecretStr = SecretStr("")

    nats_url: str = "nats://127.0.0.1:4222"
    nats_user: str = ""
    nats_password: SecretStr = SecretStr("")
    nats_ca_file: Path | None = None
    nats_monitor_url: str = ""
    nats_mode: Literal["embedded", "external"] = "external"
    nats_replicas: Annotated[int, Field(ge=1, le=5)] = 1

    meter_url: str = "http://127.0.0.1:8888"
    meter_token: SecretStr = SecretStr("")
    meter_mode: Literal["embedded", "external"] = "external"
    meter_events_path: str = "/api/v1/events"
    # The meter tells events apart by this and their ids. Changed within a month whose usage is sent again
    # (`kgents usage reconcile --repair`), it has them counted twice.
    meter_source: str = "kgents"
    reconcile_interval: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300.0
    invoice_delay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3600.0

    # Without the first, invoices are collected by other means and marked by an administrator; without the second, what
    # became of them is asked for each hour.
    stripe_api_key: SecretStr = SecretStr("")
    stripe_webhook_secret: SecretStr = SecretStr("")
    stripe_url: str = "https://api.stripe.com"

    redis_url: SecretStr | None = None

    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    egress_allow: list[str] = Field(default_factory=list)
    trusted_proxies: list[str] = Field(default_factory=list)

    max_body_bytes: Annotated[int, Field(ge=1)] = 1_048_576
    max_json_depth: Annotated[int, Field(ge=1)] = 64
    shutdown_delay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    shutdown_grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 25.0
    run_lease: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    idempotency_ttl: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 86_400.0
    # For when more comes than an API process can serve (api/admission.py): how many requests are worked on at once, how
    # many wait for their turn and for how long, and how many connections are open; all at most. What is more is refused
    # with 503.
    max_at_work: Annotated[int, Field(ge=1)] = 64
    max_waiting: Annotated[int, Field(ge=1)] = 512
    max_wait: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    max_connections: Annotated[int, Field(ge=1)] = 4000
    # How many requests of one tenant an API process has under way at once, streams among them; what is more is refused
    # with 429.
    max_tenant_requests: Annotated[int, Field(ge=1)] = 2000

    default_requests_per_minute: Annotated[int, Field(ge=1)] = 60_000
    default_tokens_per_minute: Annotated[int, Field(ge=1)] = 10_000_000

    log_level: Literal["debug", "info", "warning", "error"] = "info"


def load() -> Settings:
    """The settings of this process, from its environment. Raises Unprocessable for one that can't be used."""
    if folder := Settings.model_config.get("secrets_dir"):
        _check_secrets(Path(str(folder)).expanduser())
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "KGENTS_" + "__".join(str(part) for part in first["loc"]).upper()
        raise Unprocessable(f"The setting {name} can't be used: {first['msg']}.", code="setting") from None
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))  # pydantic-settings tells it in the text only
        name = f"The setting KGENTS_{field[1].upper()}" if field else "A KGENTS_ setting"
        raise Unprocessable(f"{name} can't be used: it is not valid JSON.", code="setting") from None


def _check_secrets(folder: Path) -> None:
    """Raise Unprocessable where a folder of secrets, or the file of a setting in it, can't be read: pydantic-settings
    only warns of that, or tells it as if a value were no JSON.
    """
    names = {f"kgents_{field}" for field in Settings.model_fields}
    try:
        files = [path for path in sorted(folder.iterdir()) if path.name.lower() in names]
    except OSError as error:
        raise Unprocessable(
            f"The folder of secrets, {folder}, can't be read: {error.strerror}. Correct KGENTS_SECRETS_DIR.",
            code="setting",
        ) from None
    for path in files:
        try:
            path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise Unprocessable(
                f"The setting {path.name.upper()} can't be used: its file, {path}, can't be read: {why}. Correct the "
                "file, or remove it.",
                code="setting",
            ) from None
