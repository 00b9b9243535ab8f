"""The composition root: settings -> adapters -> services -> process. Nothing else wires parts together."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
import uvicorn
import uvloop

from kgents.agents.catalog import Catalog
from kgents.agents.executor import Executor
from kgents.agents.keeper import Keeper
from kgents.agents.models.registry import ModelRegistry
from kgents.agents.prepare import Planner
from kgents.agents.tools.egress import EgressRules
from kgents.api.admission import Admission
from kgents.api.app import build_api
from kgents.api.gate import Gate
from kgents.api.limits import RateLimits
from kgents.api.services import Services
from kgents.api.source import Proxies
from kgents.api.transport import Protocol, allow_connections, close_idle
from kgents.billing.account import open_account
from kgents.billing.service import BillingService
from kgents.bus.model import BusUnavailable
from kgents.bus.monitor import verify_durable
from kgents.bus.nats import Bus
from kgents.bus.streams import USAGE_STREAM
from kgents.clock import Clock, SystemClock
from kgents.config import Settings
from kgents.console.pages import ROUTES
from kgents.errors import KgentsError, Unavailable
from kgents.ids import new_id
from kgents.meter.client import MeterClient
from kgents.meter.server import serve as serve_meter
from kgents.store import outbox
from kgents.store.changes import ChangeFeed
from kgents.store.engine import Scope, Store, open_store
from kgents.store.failures import unavailable
from kgents.store.migrate import check_current
from kgents.telemetry import logs, traces
from kgents.telemetry.health import Check, Facts, HealthBoard
from kgents.telemetry.metrics import Metrics
from kgents.telemetry.server import QuietServer, serve_telemetry, telemetry_app
from kgents.tenants import keys
from kgents.tenants.audit import AuditService
from kgents.tenants.authenticator import Authenticator
from kgents.tenants.ratelimit import Limiter, open_limiter
from kgents.tenants.service import KeyService, TenantService
from kgents.workers.auditor import Auditor
from kgents.workers.invoicer import Invoicer
from kgents.workers.meter_sink import MeterSink
from kgents.workers.relay import Relay
from kgents.workers.runs import RunWorker
from kgents.workers.stream_watch import StreamWatch
from kgents.workers.sweeper import Sweeper

if TYPE_CHECKING:
    from kgents.billing.gateway import Gateway

log = structlog.get_logger(__name__)

STRIPE_AGE = 10.0  # seconds for which an answer of Stripe's is told again: each replica asks it for itself

Ready = Callable[[], None]
Listener = socket.socket | None


def nothing() -> None:
    """What to call once ready where nobody waits."""


@dataclass(slots=True)
class Parts:
    """What API and worker processes have in common."""

    settings: Settings
    clock: Clock
    store: Store
    bus: Bus
    meter: MeterClient
    metrics: Metrics
    registry: ModelRegistry
    planner: Planner
    executor: Executor
    keeper: Keeper
    health: HealthBoard
    feed: ChangeFeed
    billing: BillingService
    stripe: Gateway | None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    failed: bool = False

    def spawn(self, work: Awaitable[None], name: str) -> None:
        """Run a loop for as long as the process lives. A loop that ends by itself, in whatever way, ends the process
        and has it fail: it would be missed.
        """

        async def loop() -> None:
            error: BaseException | None = None
            try:
                await work
            except BaseException as raised:  # a cancellation, too: an inner one would else end the loop unseen
                error = raised
            if not self.health.draining:  # else the process is about to end, as it should
                log.critical("a loop of this process ended; ending it", loop=name, exc_info=error)
                self.failed = True
                os.kill(os.getpid(), signal.SIGTERM)

        self.tasks.append(asyncio.create_task(loop(), name=name))

    async def stop_tasks(self) -> None:
        """Cancel the loops."""
        self.health.draining = True
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@asynccontextmanager
async def _parts(settings: Settings, kind: str) -> AsyncIterator[Parts]:
    clock = SystemClock()
    metrics = Metrics(kind)
    store = open_store(settings.database_url, observe=metrics.store_commit)
    await check_current(store)
    bus = Bus(settings, clock)
    await bus.start()
    meter = MeterClient(
        str(settings.meter_url), settings.meter_token.get_secret_value(), events_path=settings.meter_events_path
    )
    stripe = open_account(settings)
    EgressRules.parse(settings.egress_allow)  # a setting that can't be read is for now, not for a run
    registry = ModelRegistry(settings)
    planner = Planner(registry)
    executor = Executor(
        settings=settings,
        store=store,
        bus=bus,
        clock=clock,
        planner=planner,
        metrics=metrics,
        instance=new_id("proc"),
    )
    keeper = Keeper(store=store, bus=bus, clock=clock, executor=executor, name=settings.process_name, kind=kind)
    parts = Parts(
        settings=settings,
        clock=clock,
        store=store,
        bus=bus,
        meter=meter,
        metrics=metrics,
        registry=registry,
        planner=planner,
        executor=executor,
        keeper=keeper,
        health=HealthBoard(_checks(settings, store, bus, meter, stripe, keeper, clock), clock),
        feed=ChangeFeed(store, clock),
        billing=BillingService(clock, TenantService(clock)),
        stripe=stripe,
    )
    try:
        await keeper.beat()
        parts.spawn(keeper.run(), "keeper")
        parts.spawn(_measure(parts), "gauges")
        parts.tasks.append(asyncio.create_task(registry.warm(), name="model providers"))
        yield parts
    finally:
        await parts.stop_tasks()
        await keeper.leave()
        await bus.close()
        await meter.aclose()
        if stripe:
            await stripe.aclose()
        await registry.aclose()
        await store.close()
        traces.shutdown()
    if parts.failed:
        raise SystemExit(1)


def _checks(
    settings: Settings, store: Store, bus: Bus, meter: MeterClient, stripe: Gateway | None, keeper: Keeper, clock: Clock
) -> list[Check]:
    async def sql() -> Facts:
        # A write, since a database that only reads can record no run.
        await keeper.beat()
        if failure := store.failing():  # on a full disk a small write may still find room, where requests' do not
            raise unavailable(failure) from failure
        backlog = await store.read(Scope.system(), outbox.backlog)
        return Facts(backlog=backlog.count)

    async def nats() -> Facts:
        await bus.ping()
        backlog = (await bus.pending(USAGE_STREAM)).messages
        failing = "; ".join(f"{subject}: {why}" for subject, why in (await bus.failing()).items())
        return Facts(backlog=backlog, degraded=failing or None)

    async def metering() -> Facts:
        await meter.ping()
        return Facts()

    return [
        Check("sql", "embedded" if store.dialect == "sqlite" else "external", sql, critical=True),
        Check("nats", settings.nats_mode, nats),
        Check("meter", settings.meter_mode, metering),
        Check("stripe", "external", _asking_stripe(stripe, clock) if stripe else None),
    ]


def _asking_stripe(stripe: Gateway, clock: Clock) -> Callable[[], Awaitable[Facts]]:
    last_ok = float("-inf")

    async def probe() -> Facts:
        nonlocal last_ok
        if clock.monotonic() - last_ok > STRIPE_AGE:
            await stripe.ping()
            last_ok = clock.monotonic()
        return Facts()

    return probe


async def _measure(parts: Parts) -> None:
    while True:
        try:
            backlog = await parts.store.read(Scope.system(), outbox.backlog)
            parts.metrics.outbox(backlog.count, backlog.age(parts.clock.now()))
        except Unavailable:
            parts.metrics.outbox_unknown()
            log.warning("the outbox could not be measured: the database is away")
        parts.metrics.bus(connected=parts.bus.state.connected)
        await asyncio.sleep(2.0)


async def _watch_meter(parts: Parts) -> None:
    """Tell whether the meter answers, also where there is nothing to send to it."""
    while True:
        try:
            await parts.meter.ping()
        except KgentsError:
            parts.metrics.meter_answers(False)
        else:
            parts.metrics.meter_answers(True)
        await asyncio.sleep(5.0)


class _Server(QuietServer):
    """A server that on SIGTERM first fails readiness and lets streams and runs end or be handed over."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: object) -> None:  # noqa: ARG002 - uvicorn's
        if self._draining is None:
            self._draining = asyncio.get_event_loop().create_task(self._end())
        else:
            self.force_exit = True
            self.should_exit = True

    async def _end(self) -> None:
        try:
            await self._drain()
        finally:
            self.should_exit = True


def run_api(settings: Settings, ready: Ready = nothing, listener: Listener = None, metrics: Listener = None) -> None:
    """Serve the API until SIGTERM. `ready` is called once it answers. `listener` and `metrics` are sockets that listen
    already, instead of the settings' ports.
    """
    settings = _named(settings, "api")
    _run(_api(settings, ready, listener, metrics), settings, "api")


async def _api(settings: Settings, ready: Ready, listener: Listener, metrics: Listener) -> None:
    async with _parts(settings, "api") as parts:
        services = _services(parts)
        parts.feed.subscribe(services.authenticator.apply, services.authenticator.clear)
        parts.feed.subscribe(services.catalog.apply, services.catalog.clear)
        parts.spawn(parts.feed.run(), "change feed")
        parts.spawn(_flush_key_use(parts, services.authenticator), "key use")

        async def drain() -> None:
            parts.health.draining = True
            # Who keeps a connection open goes elsewhere with the next request after an answer that asks for it, and
            # doesn't send it to a process that is gone (RFC 9112, section 9.6). It is in all answers within a second.
            config.encoded_headers.append((b"connection", b"close"))
            await asyncio.sleep(settings.shutdown_delay)
            services.draining.set()
            await parts.executor.drain(settings.shutdown_grace)

        gate = Gate(
            services.admission,
            services.authenticator,
            allow_connections(settings.max_connections),
            settings.max_body_bytes,
        )
        config = uvicorn.Config(
            build_api(services, ROUTES),
            host=settings.host,
            port=settings.port,
            http=functools.partial(Protocol, gate),  # type: ignore[arg-type]
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=5,
            limit_concurrency=None,
        )
        server = _Server(config, drain)
        async with _telemetry(parts, metrics):
            parts.spawn(_announce(server, ready), "announce")
            parts.spawn(close_idle(server.server_state.connections), "idle connections")
            with _signals(server.handle_exit):
                await server.serve(sockets=[listener] if listener else None)


def _telemetry(parts: Parts, listener: Listener) -> contextlib.AbstractAsyncContextManager[None]:
    page = telemetry_app(parts.metrics, parts.health)
    return serve_telemetry(page, parts.settings.host, parts.settings.metrics_port, listener)


async def _announce(server: uvicorn.Server, ready: Ready) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn tells by an attribute
        await asyncio.sleep(0.005)
    ready()
    await asyncio.Event().wait()


@contextlib.contextmanager
def _signals(handler: Callable[[int, object], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handler, number, None)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _limiter(parts: Parts) -> Limiter:
    url = parts.settings.redis_url
    limiter = open_limiter(url.get_secret_value() if url else None, parts.clock)

    async def shared() -> Facts:
        alone = not await limiter.ping()
        return Facts(degraded="it does not answer; each process counts alone" if alone else None)

    parts.health.add(Check("rate_limits", "external", shared if url else None))
    return limiter


def _services(parts: Parts) -> Services:
    settings = parts.settings
    tenants = TenantService(parts.clock)
    peppers = keys.parse_peppers(settings.pepper.get_secret_value())
    return Services(
        settings=settings,
        clock=parts.clock,
        store=parts.store,
        bus=parts.bus,
        meter=parts.meter,
        metrics=parts.metrics,
        health=parts.health,
        authenticator=Authenticator(parts.store, parts.clock, peppers, parts.feed.fresh),
        limits=RateLimits(_limiter(parts), settings),
        admission=Admission(settings, parts.metrics),
        proxies=Proxies(settings.trusted_proxies),
        registry=parts.registry,
        planner=parts.planner,
        catalog=Catalog(parts.store, parts.feed.fresh),
        executor=parts.executor,
        tenants=tenants,
        keys=KeyService(parts.clock, peppers),
        audit=AuditService(parts.clock),
        billing=parts.billing,
    )


async def _flush_key_use(parts: Parts, authenticator: Authenticator) -> None:
    while True:
        await asyncio.sleep(5.0)
        with contextlib.suppress(Unavailable):
            await parts.store.write(Scope.system(), authenticator.flush_last_used)


def run_worker(settings: Settings, ready: Ready = nothing, metrics: Listener = None) -> None:
    """Carry out background runs, relay the outbox, feed the meter and sweep, until SIGTERM. `metrics` is a socket that
    listens already.
    """
    settings = _named(settings, "worker")
    _run(_worker(settings, ready, metrics), settings, "worker")


async def _worker(settings: Settings, ready: Ready, metrics: Listener) -> None:
    await _insist_on_durability(settings)
    async with _parts(settings, "worker") as parts:
        runs = RunWorker(
            store=parts.store,
            bus=parts.bus,
            clock=parts.clock,
            planner=parts.planner,
            executor=parts.executor,
            source=settings.meter_source,
        )
        relay = Relay(parts.store, parts.bus, parts.metrics)
        sink = MeterSink(parts.bus, parts.meter, parts.metrics)
        sweeper = Sweeper(parts.store, parts.bus, parts.metrics, parts.clock)
        streams = StreamWatch(parts.bus, parts.metrics)
        auditor = Auditor(parts.store, parts.meter, parts.metrics, parts.clock, settings.reconcile_interval)
        parts.spawn(runs.run(), "runs")
        parts.spawn(relay.run(), "relay")
        parts.spawn(sink.run(), "meter sink")
        parts.spawn(sweeper.run(), "sweeper")
        parts.spawn(streams.run(), "stream gauges")
        parts.spawn(auditor.run(), "auditor")
        parts.spawn(Invoicer(parts.store, parts.metrics, parts.clock, settings.invoice_delay).run(), "invoicer")
        parts.spawn(_watch_meter(parts), "meter gauge")
        if parts.stripe:
            from kgents.workers.collector import Collector
            from kgents.workers.inbox import Inbox

            to_stripe = (parts.store, parts.stripe, parts.billing, parts.metrics, parts.clock)
            parts.spawn(Collector(*to_stripe).run(), "collector")
            parts.spawn(Inbox(*to_stripe).run(), "inbox")
        async with _telemetry(parts, metrics):
            ready()
            await _terminated()
            parts.health.draining = True
            await runs.stop()
            await parts.executor.drain(settings.shutdown_grace)
            await runs.finish(2.0)


async def _insist_on_durability(settings: Settings) -> None:
    """In production a bus that acknowledges before it is on disk is refused: it would lose usage in a power cut."""
    while settings.nats_monitor_url:
        try:
            await asyncio.to_thread(verify_durable, settings.nats_monitor_url)
            return
        except BusUnavailable as error:
            log.warning("waiting for the NATS server to tell of its durability", reason=error.why)
            await asyncio.sleep(2.0)


def run_meter(settings: Settings, ready: Ready = nothing, listener: Listener = None) -> None:
    """Serve the embedded meter until SIGTERM. `listener` is a socket that listens already."""
    settings = _named(settings, "meter")
    _run(_meter(settings, ready, listener), settings, "meter")


async def _meter(settings: Settings, ready: Ready, listener: Listener) -> None:
    serving = asyncio.create_task(
        serve_meter(
            settings.host,
            settings.port,
            settings.data_dir / "meter.db",
            settings.meter_token.get_secret_value(),
            ready,
            listener,
        )
    )
    await asyncio.wait([serving, asyncio.create_task(_terminated())], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()  # raises why it could not serve
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def _terminated() -> None:
    stopped = asyncio.Event()
    with _signals(lambda _number, _frame: stopped.set()):
        await stopped.wait()


def _named(settings: Settings, kind: str) -> Settings:
    """The settings of this process, with a name that no other has."""
    if settings.process_name:
        return settings
    return settings.model_copy(update={"process_name": f"{socket.gethostname()}-{kind}-{os.getpid()}"})


def _calm_collector() -> None:
    """Keep the garbage collector from walking the imported modules again and again: on their half a million objects a
    full collection stalls every request for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _run(main: Coroutine[None, None, None], settings: Settings, kind: str) -> None:
    _calm_collector()
    logs.configure(settings.log_level, settings.process_name)
    traces.configure(
        f"kgents-{kind}",
        instance=settings.process_name,
        database="sqlite" if settings.database_url.startswith("sqlite") else "postgresql",
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except KgentsError as error:
        log.critical("can't start", process=kind, reason=error.detail)
        raise SystemExit(1) from error
    finally:
        logs.flush()
