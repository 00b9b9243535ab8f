"""What is written from this package, and where to."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring import rules
from monitoring.boards.autoscaling import autoscaling
from monitoring.boards.billing_pipeline import billing_pipeline
from monitoring.boards.nats import nats
from monitoring.boards.overview import overview
from monitoring.boards.slos import slos
from monitoring.boards.tenants import tenants

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "dashboards"
BOARDS = {
    "saas-overview": overview,
    "tenants": tenants,
    "billing-pipeline": billing_pipeline,
    "nats": nats,
    "autoscaling": autoscaling,
    "slos": slos,
}


def written() -> dict[Path, str]:
    """Every file and its text."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    boards = {FOLDER / f"{name}.json": encoder.encode(make().build()) + "\n" for name, make in BOARDS.items()}
    return {
        **boards,
        ROOT / "deploy/components/prometheus/prometheus-rule.yaml": rules.resource(),
        ROOT / "deploy/components/prometheus-rules/kgents.rules.yaml": rules.plain(),
    }
