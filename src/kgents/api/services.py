"""What the routes work with. Made once for each process by app.py."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from kgents.agents.catalog import Catalog
from kgents.agents.executor import Executor
from kgents.agents.models.registry import ModelRegistry
from kgents.agents.prepare import Planner
from kgents.api.admission import Admission
from kgents.api.limits import RateLimits
from kgents.api.source import Proxies
from kgents.billing.service import BillingService
from kgents.bus.nats import Bus
from kgents.clock import Clock
from kgents.config import Settings
from kgents.meter.client import MeterClient
from kgents.store.engine import Store
from kgents.telemetry.health import HealthBoard
from kgents.telemetry.metrics import Metrics
from kgents.tenants.audit import AuditService
from kgents.tenants.authenticator import Authenticator
from kgents.tenants.service import KeyService, TenantService


@dataclass(slots=True)
class Services:
    """The parts of one API process. `draining` is set once it is asked to stop."""

    settings: Settings
    clock: Clock
    store: Store
    bus: Bus
    meter: MeterClient
    metrics: Metrics
    health: HealthBoard
    authenticator: Authenticator
    limits: RateLimits
    admission: Admission
    proxies: Proxies
    registry: ModelRegistry
    planner: Planner
    catalog: Catalog
    executor: Executor
    tenants: TenantService
    keys: KeyService
    audit: AuditService
    billing: BillingService
    draining: asyncio.Event = field(default_factory=asyncio.Event)
