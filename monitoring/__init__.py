"""What an operator sees and is woken by, as code: dashboards for Grafana and rules for Prometheus.

`make dashboards` writes dashboards/*.json and the rules under deploy/components from it. It is no part of the product,
and sees it by its metrics and logs only. `external` lists what the queries ask of others' programs.
"""
