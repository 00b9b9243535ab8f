"""Prometheus metrics of one process. No label names a tenant, so their number does not grow with the tenants'.

Names and units follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from kgents import __version__
from kgents.telemetry.series import Counts, Distribution

M = TypeVar("M", Counter, Gauge)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_INPUT, _OUTPUT = ("input",), ("output",)
FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """Every metric of a process, with a method for each thing that happens."""

    def __init__(self, process: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = self._gauge("build_info", "The version that runs.", ("version", "process"))
        build.labels(__version__, process).set(1)
        self._requests = self._counts("http_requests", "HTTP requests answered.", ("route", "method", "status"))
        self._durations = self._distribution(
            "http_request_duration_seconds", "Time to the end of the response.", FAST, ("route", "method")
        )
        self._in_flight = 0
        self._gauge("http_requests_in_flight", "HTTP requests being answered.").set_function(lambda: self._in_flight)
        self._shed = self._counter(
            "requests_refused", "Requests refused because more come than can be served.", ("reason",)
        )
        self._limited = self._counter("rate_limited", "Requests refused by a rate limit.", ("kind",))
        self._quota = self._counter("quota_exceeded", "Runs refused or ended by a quota.", ("meter",))
        self._runs = self._counts("runs", "Runs that ended.", ("mode", "status"))
        self._run_seconds = self._distribution("run_duration_seconds", "Time from start to end of a run.", FAST)
        self._running = 0
        self._gauge("runs_in_flight", "Runs that this process carries out.").set_function(lambda: self._running)
        self._restarted = self._counter("runs_restarted", "Runs continued after their process ended.")
        self._tokens = self._counts("tokens", "Tokens used by runs.", ("direction",))
        self._tools = self._counter("tool_calls", "Tool calls carried out.", ("kind",))
        self._model_seconds = self._distribution(
            "model_request_duration_seconds", "Time of a model call.", FAST, ("provider",)
        )
        self._outbox = self._gauge("outbox_backlog_messages", "Messages that wait in the outbox.")
        self._outbox_age = self._gauge("outbox_oldest_age_seconds", "How long the oldest of them has waited.")
        self._bus = self._gauge("bus_connected", "1 while the bus can be used.")
        self._meter: Gauge | None = None
        self._meter_accepts = True
        self._stream = {
            name: self._gauge(f"stream_{name}", text, ("stream",))
            for name, text in (
                ("messages", "Messages in a stream of the bus."),
                ("bytes", "Their size."),
                ("oldest_age_seconds", "How long the oldest of them has been there."),
                ("replicas", "Servers that are to keep the stream."),
                ("replicas_current", "Servers that have all of it now; 0 while the bus does not tell."),
            )
        }
        self._difference = self._gauge(
            "reconcile_difference", "Units by which ledger and meter differ in hours that were compared.", ("meter",)
        )
        self._compared: tuple[str, ...] = ()
        self._reconciled = self._gauge(
            "reconcile_last_success_timestamp_seconds", "When ledger and meter were last compared; 0: not yet."
        )
        self._invoices = self._counter("invoices", "Invoices that were made.")
        self._misinvoiced = self._counter(
            "invoice_differences",
            "Meters of new invoices that differed from the ledger, and invoices that could not be made.",
        )
        self._stripe_backlog = self._gauge("stripe_backlog", "Invoices and webhooks that wait for Stripe.", ("kind",))
        self._stripe_age = self._gauge(
            "stripe_oldest_age_seconds", "How long the oldest of them has waited.", ("kind",)
        )
        for kind in ("invoices", "webhooks"):
            self.stripe_backlog(kind, 0, 0.0)
        self._stripe_refused = self._counter("stripe_refused", "Requests for an invoice that Stripe refused.")
        self._webhooks = self._counter("webhooks", "Requests to the webhook endpoint.", ("outcome",))
        self._revenue = self._gauge(
            "revenue_today_minor_units", "What today (UTC) has come to so far, in minor units.", ("currency",)
        )
        self._currencies: set[str] = set()
        self._relayed = self._counter("outbox_messages_relayed", "Outbox messages stored by the bus.", ("topic",))
        self._metered = self._counter("usage_events_metered", "Usage events accepted by the meter.")
        self._refused = self._counter("usage_events_refused", "Usage events that the meter refused for good.")
        self._swept = self._counter("swept", "What the sweeper settled.", ("kind",))
        self._commits = self._distribution("store_commit_seconds", "Time of a group commit.", FAST)
        self._groups = self._distribution(
            "store_group_size", "Requests that shared a commit.", (1, 2, 4, 8, 16, 32, 64, 128, 256)
        )
        self._children: dict[tuple[Any, ...], Any] = {}

    def _of(self, metric: M, *labels: str) -> M:
        """The metric with these labels; finding it again costs less than the metric's own way."""
        key = (metric, *labels)
        child: M | None = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"kgents_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"kgents_{name}", text, labels, registry=self.registry)

    def _counts(self, name: str, text: str, labels: tuple[str, ...]) -> Counts:
        return Counts(f"kgents_{name}", text, labels, self.registry)

    def _distribution(
        self, name: str, text: str, bounds: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Distribution:
        return Distribution(f"kgents_{name}", text, bounds, labels, self.registry)

    def expose(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    def request_started(self) -> None:
        """An HTTP request came in."""
        self._in_flight += 1

    def request_ended(self, route: str, method: str, status: int, seconds: float) -> None:
        """An HTTP request was answered; `route` is the route's template."""
        self._in_flight -= 1
        method = method if method in METHODS else "OTHER"
        self._requests.add((route, method, status))
        self._durations.observe(seconds, (route, method))

    def request_refused(self, reason: str) -> None:
        """A request was refused for overload, with `reason` `queue`, `wait` or `connections`. Those refused by their
        head alone are counted in no other metric.
        """
        self._of(self._shed, reason).inc()

    def watch_admission(
        self, at_work: Callable[[], float], waiting: Callable[[], float], limit: Callable[[], float]
    ) -> None:
        """Where to read, whenever metrics are asked for, how many requests are worked on and wait."""
        self._gauge("requests_at_work", "Requests that hold a place.").set_function(at_work)
        self._gauge("requests_waiting", "Requests that wait for a place.").set_function(waiting)
        self._gauge("requests_at_work_limit", "How many places there are now.").set_function(limit)

    def rate_limited(self, kind: str) -> None:
        """A request was refused by a limit of `requests`, `tokens`, `under_way` or `wrong_keys`."""
        self._limited.labels(kind).inc()

    def quota_exceeded(self, meter: str) -> None:
        """A run was refused or ended by the quota of a meter."""
        self._quota.labels(meter).inc()

    def run_started(self) -> None:
        """This process began to carry out a run."""
        self._running += 1

    def run_left(self) -> None:
        """This process no longer carries out a run, however that came."""
        self._running -= 1

    def run(self, mode: str, status: str, seconds: float) -> None:
        """A run ended."""
        self._runs.add((mode, status))
        self._run_seconds.observe(seconds)

    def run_restarted(self) -> None:
        """A run goes on after its process ended; a model call that was cut off is made again."""
        self._restarted.inc()

    def tokens(self, input_tokens: int, output_tokens: int) -> None:
        """A step's tokens were recorded."""
        if input_tokens:
            self._tokens.add(_INPUT, input_tokens)
        if output_tokens:
            self._tokens.add(_OUTPUT, output_tokens)

    def tool_call(self, kind: str) -> None:
        """A tool was called; `kind` is `builtin` or `mcp`."""
        self._tools.labels(kind).inc()

    def model_request(self, model: str, seconds: float) -> None:
        """A model answered; `model` is `<provider>:<name>`, of which only the provider is kept."""
        self._model_seconds.observe(seconds, (model.partition(":")[0],))

    def outbox(self, count: int, oldest_age: float) -> None:
        """What waits in the outbox, and for how many seconds the oldest has."""
        self._outbox.set(count)
        self._outbox_age.set(oldest_age)

    def outbox_unknown(self) -> None:
        """The database does not tell of the outbox."""
        self._outbox.set(math.nan)
        self._outbox_age.set(math.nan)

    def bus(self, *, connected: bool) -> None:
        """Whether the bus can be used."""
        self._bus.set(connected)

    def meter(self, *, connected: bool) -> None:
        """Whether the meter accepted the last events. A process that sends it none says nothing about the meter."""
        self._meter_accepts = connected
        self.meter_answers(connected)

    def meter_answers(self, answers: bool) -> None:
        """Whether the meter answers. One that did not accept events, which are tried again, is not connected by that
        alone.
        """
        if self._meter is None:
            self._meter = self._gauge("meter_connected", "1 while the meter accepts events.")
        self._meter.set(answers and self._meter_accepts)

    def stream(
        self, name: str, *, messages: int, size_bytes: int, oldest_age: float, replicas: int, replicas_current: int
    ) -> None:
        """What a stream of the bus holds (its oldest message since `oldest_age` seconds), and on how many servers."""
        values = (messages, size_bytes, oldest_age, replicas, replicas_current)
        for gauge, value in zip(self._stream.values(), values, strict=True):
            self._of(gauge, name).set(value)

    def stream_unknown(self, name: str) -> None:
        """The bus does not tell of a stream: no server is known to have it, nor what it holds."""
        for gauge in ("messages", "bytes", "oldest_age_seconds"):
            self._of(self._stream[gauge], name).set(math.nan)
        self._of(self._stream["replicas_current"], name).set(0)

    def reconciled(self, differences: Mapping[str, int], at: int) -> None:
        """Ledger and meter were compared `at` that moment (microseconds): the units by which they differ, by meter."""
        for meter, units in differences.items():
            self._of(self._difference, meter).set(units)
        self._compared = tuple(differences)
        self._reconciled.set(at / 1e6)

    def reconcile_unknown(self) -> None:
        """Ledger and meter could not be compared: what they differed by may have been mended since."""
        for meter in self._compared:
            self._of(self._difference, meter).set(math.nan)

    def invoiced(self, differences: int) -> None:
        """An invoice was made; so many of its meters differed from the ledger."""
        self._invoices.inc()
        self._misinvoiced.inc(differences)

    def not_invoiced(self) -> None:
        """An invoice that was due could not be made."""
        self._misinvoiced.inc()

    def stripe_backlog(self, kind: str, count: int, oldest_age: float) -> None:
        """How many `invoices` Stripe does not have, or `webhooks` were not looked at, and since how many seconds."""
        self._stripe_backlog.labels(kind).set(count)
        self._stripe_age.labels(kind).set(oldest_age)

    def stripe_refused(self) -> None:
        """Stripe refused to take or to show an invoice."""
        self._stripe_refused.inc()

    def webhook(self, outcome: str) -> None:
        """A webhook came, which was `kept`, `known` already, of `no_invoice`, or `refused`."""
        self._webhooks.labels(outcome).inc()

    def revenue(self, today: Mapping[str, int]) -> None:
        """What today has come to, in minor units, by currency."""
        self._currencies |= set(today)
        for currency in self._currencies:
            self._of(self._revenue, currency).set(today.get(currency, 0))

    def relayed(self, topic: str, count: int) -> None:
        """The bus stored outbox messages."""
        self._relayed.labels(topic).inc(count)

    def metered(self, count: int) -> None:
        """The meter accepted usage events."""
        self._metered.inc(count)

    def refused(self, count: int) -> None:
        """The meter refused usage events for good."""
        self._refused.inc(count)

    def swept(self, kind: str, count: int) -> None:
        """The sweeper settled something: `orphan_runs`, `idempotency_keys`, `cache_changes`, `processes`."""
        self._swept.labels(kind).inc(count)

    def store_commit(self, group: int, seconds: float) -> None:
        """A group of requests was committed."""
        self._groups.observe(group)
        self._commits.observe(seconds)
