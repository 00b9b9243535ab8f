"""The way of usage: ledger, outbox, bus, meter, and whether they agree."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from monitoring.build import LINES, OURS, PLACE, Query, board, graph, log_panel, number, row

RATE = "$__rate_interval"
USAGE = 'stream="KGENTS_USAGE"'


def billing_pipeline() -> dashboard.Dashboard:
    """What waits where, how old it is, and what differs."""
    return board(
        "billing-pipeline",
        "kgents / Billing pipeline",
        "Usage from the ledger to the meter, and invoices from the ledger to Stripe.",
        [
            row("Now"),
            number(
                "Oldest in the outbox",
                f"max(kgents_outbox_oldest_age_seconds{{{PLACE}}})",
                says="Usage that has not left the database.",
                unit="s",
                bad=120,
            ),
            number(
                "Oldest on the bus",
                f"max(kgents_stream_oldest_age_seconds{{{PLACE},{USAGE}}})",
                says="Usage that the meter has not taken.",
                unit="s",
                bad=300,
            ),
            number("In the outbox", f"max(kgents_outbox_backlog_messages{{{PLACE}}})", says="Messages."),
            number("On the bus", f"max(kgents_stream_messages{{{PLACE},{USAGE}}})", says="Messages."),
            number(
                "Ledger - meter",
                f"sum(max by (meter) (kgents_reconcile_difference{{{PLACE}}}))",
                says="Units by which they differ.",
                bad=1,
            ),
            number(
                "Compared",
                f"time() - max(kgents_reconcile_last_success_timestamp_seconds{{{PLACE}}})",
                says="How long ago ledger and meter were compared.",
                unit="s",
                bad=3600,
            ),
            number(
                "Refused",
                f"sum(increase(kgents_usage_events_refused_total{{{PLACE}}}[1h]))",
                says="Events that the meter refused for good in the last hour.",
                bad=1,
            ),
            number(
                "Meter",
                f"max(kgents_meter_connected{{{PLACE}}})",
                says="1 while the meter takes events.",
            ),
            row("Flow"),
            graph(
                "Tokens recorded",
                Query(f"sum by (direction) (rate(kgents_tokens_total{{{OURS}}}[{RATE}]))", "{{direction}}"),
                says="Into the ledger, a second.",
                stacked=True,
            ),
            graph(
                "Relayed",
                Query(f"sum by (topic) (rate(kgents_outbox_messages_relayed_total{{{OURS}}}[{RATE}]))", "{{topic}}"),
                says="Messages from the outbox to the bus, a second.",
                unit="ops",
            ),
            graph(
                "Metered",
                Query(f"sum(rate(kgents_usage_events_metered_total{{{OURS}}}[{RATE}]))", "accepted"),
                Query(f"sum(rate(kgents_usage_events_refused_total{{{OURS}}}[{RATE}]))", "refused"),
                says="Events at the meter, a second. Refused ones are for nobody but an operator to mend.",
                unit="ops",
            ),
            row("Backlog"),
            graph(
                "Messages",
                Query(f"max(kgents_outbox_backlog_messages{{{PLACE}}})", "outbox"),
                Query(f"max(kgents_stream_messages{{{PLACE},{USAGE}}})", "bus"),
                says="What waits. It grows while the bus or the meter is away, and shrinks after.",
            ),
            graph(
                "Age",
                Query(f"namespace:kgents_usage_backlog_age:seconds{{{PLACE}}}", "oldest"),
                says="Promised: under 5 minutes, 99 % of the time.",
                unit="s",
                line=300,
            ),
            graph(
                "Difference by meter",
                Query(f"max by (meter) (kgents_reconcile_difference{{{PLACE}}})", "{{meter}}"),
                says="Ledger against meter, compared every few minutes, without the last half minute.",
                line=1,
            ),
            row("Invoices"),
            graph(
                "Wait for Stripe",
                Query(f"max by (kind) (kgents_stripe_backlog{{{PLACE}}})", "{{kind}}"),
                says="Invoices that it does not have yet, and webhooks of its that were not looked at.",
            ),
            graph(
                "Oldest",
                Query(f"max by (kind) (kgents_stripe_oldest_age_seconds{{{PLACE}}})", "{{kind}}"),
                says="A day or more while Stripe is away: they are sent later.",
                unit="s",
            ),
            graph(
                "Went wrong",
                Query(
                    f"sum(increase(kgents_invoice_differences_total{{{PLACE}}}[{RATE}]))", "not what the ledger says"
                ),
                Query(f"sum(increase(kgents_stripe_refused_total{{{PLACE}}}[{RATE}]))", "refused by Stripe"),
                says="Neither is collected. The worker's log names them.",
                line=1,
            ),
            row("Logs"),
            log_panel(
                "What the worker says of usage",
                LINES + ' |~ "meter|outbox|usage|reconcile|invoice|webhook" | json | event != "request"',
                says="Refused events are named here, with the meter's reason.",
            ),
        ],
    )
