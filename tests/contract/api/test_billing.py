"""Plans, subscriptions and invoices over the API."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.support.refusals import refused
from tests.support.waiting import wait_until

PRICES = [
    {"meter": "input_tokens", "model": None, "amount": 300, "per": 1000, "included": 2},
    {"meter": "output_tokens", "model": "kgents:echo", "amount": 7, "per": 2, "included": 0},
]


@pytest.fixture
def admin(up):
    with up.admin() as http:
        yield http


@pytest.fixture
def new_plan(admin):
    def make(**fields):
        body = {"name": uuid4().hex, "currency": "eur", **fields}
        return admin.post("/v1/plans", json=body).raise_for_status().json()

    return make


@pytest.fixture
def subscribe(admin):
    def put(tenant, plan):
        path = f"/v1/tenants/{tenant.id}/subscription"
        return admin.put(path, json={"plan": plan["id"]}).raise_for_status().json()

    return put


class TestPlans:
    """`/v1/plans`."""

    def test_a_plan_is_what_it_was_created_as(self, admin):
        body = {"name": uuid4().hex, "currency": "eur", "monthly_fee": 4900, "prices": PRICES, "quotas": {"runs": 3}}

        answer = admin.post("/v1/plans", json=body)

        assert answer.status_code == 201
        made = answer.json()
        assert {name: made[name] for name in body} == body
        assert (made["object"], made["archived_at"]) == ("plan", None)
        assert admin.get(f"/v1/plans/{made['id']}").json() == made

    def test_plans_are_listed_page_by_page(self, admin, new_plan):
        first, second = new_plan(), new_plan()
        page = admin.get("/v1/plans", params={"after": first["id"], "limit": 1}).json()
        assert [plan["id"] for plan in page["data"]] == [second["id"]]

    def test_a_name_is_free_again_once_its_plan_is_archived(self, admin, new_plan):
        plan = new_plan()
        refused(admin.post("/v1/plans", json={"name": plan["name"], "currency": "eur"}), 409)

        archived = admin.delete(f"/v1/plans/{plan['id']}").json()

        assert archived["archived_at"]
        assert admin.delete(f"/v1/plans/{plan['id']}").json() == archived
        assert new_plan(name=plan["name"])["id"] != plan["id"]

    def test_a_second_price_of_the_same_is_refused(self, admin):
        body = {"name": uuid4().hex, "currency": "eur", "prices": [PRICES[0], PRICES[0]]}
        assert "prices[1]" in refused(admin.post("/v1/plans", json=body), 422)

    def test_a_plan_that_is_not_there(self, admin):
        for plan in ("plan_01ARZ3NDEKTSV4RRFFQ69G5FAV", "nothing"):
            refused(admin.get(f"/v1/plans/{plan}"), 404)
            refused(admin.delete(f"/v1/plans/{plan}"), 404)

    def test_tenants_see_no_plans(self, tenant):
        refused(tenant.http.get("/v1/plans"), 403)


class TestSubscriptions:
    """`/v1/tenants/{id}/subscription` and `/v1/subscription`."""

    def test_a_tenant_is_on_its_plan_with_its_quotas(self, admin, new_tenant, new_plan, subscribe):
        tenant = new_tenant(quotas={"tool_calls": 7})
        plan = new_plan(monthly_fee=100, prices=PRICES, quotas={"runs": 2})

        made = subscribe(tenant, plan)

        assert (made["plan"], made["monthly_fee"], made["prices"], made["ended_at"]) == (plan["id"], 100, PRICES, None)
        assert tenant.http.get("/v1/subscription").json() == made
        assert admin.get(f"/v1/tenants/{tenant.id}/subscription").json() == made
        assert admin.get(f"/v1/tenants/{tenant.id}").json()["quotas"] == {"runs": 2}
        tenant.run("one")
        tenant.run("two")
        refused(tenant.http.post(f"/v1/sessions/{tenant.session()}/runs", json={"input": "three"}), 402)

    def test_the_same_plan_again_changes_nothing(self, tenant, new_plan, subscribe):
        plan = new_plan()
        assert subscribe(tenant, plan) == subscribe(tenant, plan)

    def test_another_plan_takes_its_place(self, tenant, new_plan, subscribe):
        before = subscribe(tenant, new_plan(quotas={"runs": 0}))
        after = subscribe(tenant, new_plan(quotas={"runs": 1}))
        assert after["id"] != before["id"]
        assert tenant.http.get("/v1/subscription").json() == after
        tenant.run("one")

    def test_after_its_end_nothing_is_allowed(self, admin, tenant, new_plan, subscribe):
        made = subscribe(tenant, new_plan())
        path = f"/v1/tenants/{tenant.id}/subscription"

        ended = admin.delete(path).json()

        assert ended == {**made, "ended_at": ended["ended_at"]}
        assert ended["ended_at"] >= made["started_at"]
        refused(tenant.http.get("/v1/subscription"), 404)
        refused(admin.delete(path), 404)
        refused(tenant.http.post(f"/v1/sessions/{tenant.session()}/runs", json={"input": "one"}), 402)

    def test_a_deleted_tenants_subscription_ends(self, admin, tenant, new_plan, subscribe):
        subscribe(tenant, new_plan())
        admin.patch(f"/v1/tenants/{tenant.id}", json={"status": "deleted"}).raise_for_status()
        path = f"/v1/tenants/{tenant.id}/subscription"
        refused(admin.get(path), 404)
        refused(admin.put(path, json={"plan": new_plan()["id"]}), 409)

    def test_an_archived_plan_takes_nobody_and_keeps_who_is_on_it(self, admin, new_tenant, new_plan, subscribe):
        plan, on, late = new_plan(), new_tenant(), new_tenant()
        made = subscribe(on, plan)
        admin.delete(f"/v1/plans/{plan['id']}").raise_for_status()
        refused(admin.put(f"/v1/tenants/{late.id}/subscription", json={"plan": plan["id"]}), 409)
        assert subscribe(on, plan) == made

    @pytest.mark.parametrize("tenant_id", ["ten_01ARZ3NDEKTSV4RRFFQ69G5FAV", "nobody"])
    def test_a_tenant_that_is_not_there(self, admin, new_plan, tenant_id):
        path = f"/v1/tenants/{tenant_id}/subscription"
        refused(admin.put(path, json={"plan": new_plan()["id"]}), 404)
        refused(admin.get(path), 404)
        refused(admin.delete(path), 404)

    def test_the_platforms_own_tenant_pays_nothing(self, admin, new_plan):
        refused(admin.put("/v1/tenants/ten_platform/subscription", json={"plan": new_plan()["id"]}), 409)

    def test_each_change_is_in_the_audit_log(self, admin, tenant, new_plan, subscribe):
        subscribe(tenant, new_plan())
        admin.delete(f"/v1/tenants/{tenant.id}/subscription").raise_for_status()
        actions = [entry["action"] for entry in tenant.http.get("/v1/audit-log", params={"limit": 100}).json()["data"]]
        assert {"subscription.create", "subscription.end", "tenant.update"} <= set(actions)


class TestInvoices:
    """`/v1/invoices`, of a kgents that leaves a month open for a second."""

    @pytest.fixture
    def billed(self, admin, tenant, new_plan, subscribe):
        """A tenant with a run on a plan that it has left, and the invoice of it."""
        plan = new_plan(prices=PRICES)
        subscribe(tenant, plan)
        tenant.run("one two three four")
        draft = tenant.http.get("/v1/invoices/upcoming").json()
        subscribe(tenant, new_plan())
        found = wait_until(
            lambda: tenant.http.get("/v1/invoices").json()["data"], seconds=30, what="the invoice is made"
        )
        return tenant, draft, found[0]

    def test_what_was_upcoming_is_what_is_charged(self, billed):
        tenant, draft, invoice = billed
        assert (draft["id"], draft["status"]) == (None, "draft")
        assert invoice["status"] == "open"
        assert [line | {"end": ""} for line in invoice["lines"]] == [line | {"end": ""} for line in draft["lines"]]
        assert invoice["total"] == draft["total"] == sum(line["amount"] for line in invoice["lines"]) > 0
        assert tenant.http.get(f"/v1/invoices/{invoice['id']}").json() == invoice

    def test_it_names_what_the_ledger_counted(self, billed):
        tenant, _, invoice = billed
        counted = {row["meter"]: row["quantity"] for row in tenant.http.get("/v1/usage?window=month").json()["data"]}
        assert {line["meter"]: line["quantity"] for line in invoice["lines"]} == counted

    def test_an_administrator_marks_it(self, admin, billed):
        tenant, _, invoice = billed
        path = f"/v1/tenants/{tenant.id}/invoices"
        assert admin.get(path).json()["data"] == [invoice]

        paid = admin.patch(f"{path}/{invoice['id']}", json={"status": "paid"}).json()

        assert paid == {**invoice, "status": "paid", "updated_at": paid["updated_at"]}
        assert tenant.http.get(f"/v1/invoices/{invoice['id']}").json() == paid
        assert admin.patch(f"{path}/{invoice['id']}", json={"status": "paid"}).json() == paid
        refused(admin.patch(f"{path}/{invoice['id']}", json={"status": "void"}), 409)

    def test_it_is_revenue_of_its_month(self, admin, billed):
        _, _, invoice = billed

        def of(status):
            rows = admin.get("/v1/revenue", params={"from": invoice["period"]}).json()["data"]
            found = [row for row in rows if (row["currency"], row["status"]) == (invoice["currency"], status)]
            return sum(row["amount"] for row in found), sum(row["invoices"] for row in found)

        (open_, count), paid = of("open"), of("paid")
        admin.patch(f"/v1/tenants/{invoice['tenant']}/invoices/{invoice['id']}", json={"status": "paid"})
        assert of("open") == (open_ - invoice["total"], count - 1)
        assert of("paid") == (paid[0] + invoice["total"], paid[1] + 1)

    @pytest.mark.parametrize(
        ("asked", "told"),
        [
            ({"from": "2026-02", "to": "2026-01"}, "must not be after"),
            ({"from": "2006-01", "to": "2026-01"}, "10 years apart"),
            ({"from": "2026-13"}, "from"),
            ({"to": "today"}, "to"),
        ],
    )
    def test_revenue_is_of_months(self, admin, asked, told):
        assert told in refused(admin.get("/v1/revenue", params=asked), 422)

    def test_revenue_is_nobodys_but_the_platforms(self, tenant):
        refused(tenant.http.get("/v1/revenue"), 403)

    def test_one_that_is_not_there(self, admin, tenant):
        for invoice in ("inv_01ARZ3NDEKTSV4RRFFQ69G5FAV", "nothing"):
            refused(tenant.http.get(f"/v1/invoices/{invoice}"), 404)
            path = f"/v1/tenants/{tenant.id}/invoices/{invoice}"
            refused(admin.patch(path, json={"status": "paid"}), 404)

    def test_without_a_subscription_there_is_none_to_come(self, tenant):
        refused(tenant.http.get("/v1/invoices/upcoming"), 404)
        assert tenant.http.get("/v1/invoices").json()["data"] == []
