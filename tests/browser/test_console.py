"""The console, as its three readers use it: a tenant's developer, an operator, and the platform's owner."""

from __future__ import annotations

import os
import signal
from uuid import uuid4

import pytest
from playwright.sync_api import Dialog, Locator, Page, expect

from tests.support.stripe import FakeStripe
from tests.support.tenants import Tenant
from tests.support.up import Up
from tests.support.waiting import wait_until

Plan = dict[str, str]


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def section(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def row(of: Locator, text: str) -> Locator:
    return of.get_by_role("row").filter(has_text=text)


@pytest.fixture
def plan(up: Up) -> Plan:
    """A plan of 31 € a month, and 5 cents for each run beyond the first."""
    prices = [{"meter": "runs", "model": None, "amount": 5, "per": 1, "included": 1}]
    body = {"name": f"plan {uuid4().hex}", "currency": "eur", "monthly_fee": 3_100, "prices": prices}
    with up.admin() as admin:
        made: Plan = admin.post("/v1/plans", json=body).raise_for_status().json()
    return made


def subscribe(up: Up, tenant: Tenant, plan: Plan) -> None:
    with up.admin() as admin:
        admin.put(f"/v1/tenants/{tenant.id}/subscription", json={"plan": plan["id"]}).raise_for_status()


def end(up: Up, tenant: Tenant) -> None:
    """End the tenant's subscription, and wait for its invoice."""
    with up.admin() as admin:
        admin.delete(f"/v1/tenants/{tenant.id}/subscription").raise_for_status()
    wait_until(lambda: tenant.http.get("/v1/invoices").json()["data"], seconds=60, what="there is an invoice")


def accept(dialog: Dialog) -> None:
    dialog.accept()


class TestSigningIn:
    def test_a_wrong_key_is_refused_and_not_kept(self, page: Page) -> None:
        page.get_by_label("API key").fill("kg_1m8a7zsezh89cmmn_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert").first).to_contain_text("API key")
        assert page.evaluate("sessionStorage.length + localStorage.length") == 0

    def test_a_key_stays_in_its_tab_until_it_signs_out(self, page: Page, tenant: Tenant) -> None:
        sign_in(page, tenant.key)
        page.reload()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        other = page.context.new_page()
        other.goto(page.url)
        expect(other.get_by_label("API key")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("API key")).to_be_visible()
        assert page.evaluate("sessionStorage.length + localStorage.length") == 0
        assert page.context.cookies() == []

    def test_a_key_that_is_revoked_signs_out(self, page: Page, tenant: Tenant) -> None:
        key = tenant.issue(role="viewer")
        page.clock.install()
        sign_in(page, key["token"])
        tenant.http.delete(f"/v1/api-keys/{key['id']}").raise_for_status()
        page.clock.run_for(6_000)
        expect(page.get_by_label("API key")).to_be_visible()


class TestDevelopers:
    def test_a_chat_is_answered_listed_and_counted(self, page: Page, tenant: Tenant) -> None:
        sign_in(page, tenant.key)
        page.get_by_label("Message").fill("good morning")
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#answer")).to_contain_text("good morning")
        expect(row(section(page, "Latest runs"), "completed")).to_have_count(1)
        expect(row(section(page, "This month"), "runs").get_by_role("cell").nth(1)).to_have_text("1")
        expect(row(section(page, "Usage by model"), "kgents:echo").get_by_role("cell").nth(1)).to_have_text("1")

    def test_what_an_agent_is_refused_is_said(self, page: Page, tenant: Tenant, up: Up) -> None:
        with up.admin() as admin:
            admin.patch(f"/v1/tenants/{tenant.id}", json={"quotas": {"runs": 0}}).raise_for_status()
        sign_in(page, tenant.key)
        page.get_by_label("Message").fill("good morning")
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#answer")).to_contain_text("quota of runs is 0")

    def test_a_plan_and_what_it_comes_to_are_shown(self, page: Page, tenant: Tenant, up: Up, plan: Plan) -> None:
        subscribe(up, tenant, plan)
        for _ in range(3):
            tenant.run("one")
        sign_in(page, tenant.key)
        shown = section(page, "Plan")
        expect(shown).to_contain_text(f"{plan['name']}: 31.00 EUR a month")
        expect(shown).to_contain_text("runs: 0.05 EUR each, 1 included")
        shown.get_by_text("draft").click()
        expect(row(shown, "0.05 EUR for 1").get_by_role("cell").last).to_have_text("0.10 EUR")

    def test_an_invoice_has_its_lines_and_a_page_to_pay_it_on(
        self, page: Page, tenant: Tenant, up: Up, plan: Plan
    ) -> None:
        subscribe(up, tenant, plan)
        for _ in range(2):
            tenant.run("one")
        end(up, tenant)
        wait_until(
            lambda: tenant.http.get("/v1/invoices").json()["data"][0]["payment_url"], what="the invoice is at Stripe"
        )
        sign_in(page, tenant.key)
        shown = section(page, "Invoices")
        shown.get_by_text("open").click()
        expect(row(shown, "0.05 EUR for 1").get_by_role("cell").last).to_have_text("0.05 EUR")
        link = shown.get_by_role("link", name="Pay")
        expect(link).to_have_attribute("href", tenant.http.get("/v1/invoices").json()["data"][0]["payment_url"])
        expect(link).to_have_attribute("rel", "noopener noreferrer")

    def test_a_tenant_sees_nothing_of_the_platform(self, page: Page, tenant: Tenant) -> None:
        sign_in(page, tenant.key)
        expect(section(page, "Invoices")).to_contain_text("None yet.")
        expect(section(page, "Tenants")).to_be_hidden()
        expect(section(page, "Plans")).to_be_hidden()

    def test_markup_is_shown_as_the_text_that_it_is(self, page: Page, tenant: Tenant, up: Up) -> None:
        name = f"<img src=x onerror=alert(1)><b>{uuid4().hex[:8]}</b>"
        with up.admin() as admin:
            body = {"name": name, "currency": "eur", "monthly_fee": 1}
            made = admin.post("/v1/plans", json=body).raise_for_status().json()
        subscribe(up, tenant, made)
        sign_in(page, tenant.key)
        expect(section(page, "Plan")).to_contain_text(name)
        assert page.locator("#signed-in img, #signed-in b").count() == 0


class TestOperators:
    def test_what_is_away_is_shown(self, page: Page, tenant: Tenant, up: Up) -> None:
        sign_in(page, tenant.key)
        status = row(section(page, "Health"), "meter").get_by_role("cell").nth(1)
        expect(status).to_have_text("connected")
        os.kill(up.pid("meter"), signal.SIGSTOP)
        try:
            expect(status).to_have_text("disconnected")
        finally:
            os.kill(up.pid("meter"), signal.SIGCONT)
        expect(status).to_have_text("connected")

    def test_what_can_not_be_read_is_not_shown_as_if_it_were(self, page: Page, tenant: Tenant) -> None:
        sign_in(page, tenant.key)
        page.context.set_offline(True)
        expect(section(page, "Health")).to_contain_text("Not read since")
        expect(section(page, "Latest runs")).to_contain_text("Not read since")
        page.context.set_offline(False)
        expect(section(page, "Health")).not_to_contain_text("Not read since")


class TestOwners:
    def test_a_plan_is_made_and_archived(self, page: Page, up: Up) -> None:
        sign_in(page, up.facts["admin_key"])
        shown, name = section(page, "Plans"), uuid4().hex
        shown.get_by_text("New plan").click()
        shown.get_by_label("Name").fill(name)
        shown.get_by_label("Currency").fill("eur")
        shown.get_by_label("Monthly fee, in minor units").fill("1999")
        shown.get_by_role("button", name="Add a price").click()
        shown.get_by_label("Meter").select_option("output_tokens")
        shown.get_by_label("Amount, in minor units").fill("30")
        shown.get_by_label("For so many").fill("1000")
        shown.get_by_label("Included").fill("5000")
        shown.get_by_role("spinbutton", name="runs", exact=True).fill("100")
        shown.get_by_role("button", name="Create the plan").click()
        made = row(shown, name)
        expect(made).to_contain_text("19.99 EUR")
        expect(made).to_contain_text("output_tokens: 0.30 EUR for 1,000, 5,000 included")
        expect(made).to_contain_text("runs 100")
        page.once("dialog", accept)
        made.get_by_role("button", name="Archive").click()
        expect(made).to_contain_text("archived")
        expect(made.get_by_role("button")).to_have_count(0)

    def test_what_is_refused_is_said(self, page: Page, up: Up, plan: Plan) -> None:
        sign_in(page, up.facts["admin_key"])
        shown = section(page, "Plans")
        shown.get_by_text("New plan").click()
        shown.get_by_label("Name").fill(plan["name"])
        shown.get_by_label("Currency").fill("eur")
        shown.get_by_role("button", name="Create the plan").click()
        expect(shown.get_by_role("alert")).to_contain_text("Archive it first")

    def test_a_tenant_is_subscribed_and_its_invoice_marked(
        self, page: Page, up: Up, stripe: FakeStripe, tenant: Tenant, plan: Plan
    ) -> None:
        stripe.misbehave(lambda _request: "429")  # so that the invoice stays here
        try:
            sign_in(page, up.facts["admin_key"])
            name = name_of(up, tenant)
            more(page, name)
            page.get_by_role("button", name=f"Open {name}").click()
            shown = section(page, name)
            shown.get_by_label("Plan").select_option(plan["name"])
            shown.get_by_role("button", name="Subscribe").click()
            expect(shown).to_contain_text(f"{plan['name']}: 31.00 EUR a month")
            for _ in range(2):
                tenant.run("one")
            page.once("dialog", accept)
            shown.get_by_role("button", name="End the subscription").click()
            expect(shown).to_contain_text("No plan.")
            wait_until(lambda: tenant.http.get("/v1/invoices").json()["data"], seconds=60, what="there is an invoice")
            page.get_by_role("button", name=f"Open {name}").click()
            page.once("dialog", accept)
            shown.get_by_role("button", name="Mark as paid").click()
            expect(shown).to_contain_text("paid")
            expect(row(section(page, "Revenue"), "paid")).to_contain_text("EUR")
            expect(shown.get_by_role("button", name="Mark as paid")).to_have_count(0)
        finally:
            stripe.misbehave(None)
        assert tenant.http.get("/v1/invoices").json()["data"][0]["status"] == "paid"

    def test_an_invoice_that_is_not_confirmed_stays(self, page: Page, up: Up, tenant: Tenant, plan: Plan) -> None:
        subscribe(up, tenant, plan)
        sign_in(page, up.facts["admin_key"])
        name = name_of(up, tenant)
        more(page, name)
        page.get_by_role("button", name=f"Open {name}").click()
        page.once("dialog", lambda dialog: dialog.dismiss())
        section(page, name).get_by_role("button", name="End the subscription").click()
        expect(section(page, name)).to_contain_text(plan["name"])
        assert tenant.http.get("/v1/subscription").json()["ended_at"] is None


def name_of(up: Up, tenant: Tenant) -> str:
    with up.admin() as admin:
        return str(admin.get(f"/v1/tenants/{tenant.id}").raise_for_status().json()["name"])


def more(page: Page, name: str) -> None:
    """Go on through the pages of tenants until there is one of this name."""
    wanted = page.get_by_role("button", name=f"Open {name}")
    while not wanted.count():
        page.get_by_role("button", name="More").click()
