"""The overlay for production rolls out and is healthy, with what it awaits of others: a database and a meter elsewhere,
certificates of a real cert-manager, and a gateway with TLS. Kong, Loki and Grafana can't be had where the tests run:
nginx stands in for the first, and the others are left out.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx2
import pytest
import yaml

from cluster import build, layout, processes
from kgents.deploy.findings import condition
from tests.cluster import kinds
from tests.cluster.installation import NAMESPACE, ROOT, Cluster, Installation, parts
from tests.cluster.test_backup import sql
from tests.support import nginx
from tests.support.documents import blocks, typed
from tests.support.nginx import Nginx
from tests.support.tenants import tenant_of
from tests.support.waiting import wait_until

DOCUMENT = "docs/operations/deploy.md"
ELSEWHERE = "kgents-elsewhere"  # where OpenMeter would be
SPACE = "kgents-production"  # beside the tests' own installation, which is in the overlay's namespace
HOST = "kgents.example.com"
ADDRESS = "127.0.0.78"
DATABASE = "production"
CONTAINER = "/spec/template/spec/containers/0"
SECONDS = 180
LEFT_OUT = [
    {"kind": "StatefulSet", "name": "kgents-loki"},
    {"kind": "Deployment", "name": "kgents-grafana"},
    {"namespace": "kgents-logs"},  # the collector is there already: each node has one
    {"kind": "Namespace", "name": "kgents-logs"},
]


class Production(Installation):
    """The overlay with what is marked `Yours` in it changed."""

    def __init__(self, beside: Installation) -> None:
        super().__init__(beside.cluster, beside.images, namespace=SPACE)
        self._beside = beside
        self._meter_token = secrets.token_hex(24)

    def overlay(self, *_: Any, **__: Any) -> Path:
        folder = self._folder
        delete = {"apiVersion": "v1", "kind": "Any", "metadata": {"name": "any"}, "$patch": "delete"}
        issuer = [{"op": "replace", "path": "/spec/issuerRef/name", "value": "company"}]
        elsewhere = [
            {"op": "replace", "path": "/spec/egress/0/to/0/ipBlock/cidr", "value": "0.0.0.0/0"},
            {"op": "add", "path": "/spec/egress/0/ports/-", "value": {"port": 8888, "protocol": "TCP"}},
        ]
        less = [{"op": "replace", "path": f"{CONTAINER}/resources/requests/cpu", "value": "200m"}]
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": SPACE,
            "resources": [os.path.relpath(ROOT / "deploy" / "overlays" / "production", folder)],
            "images": [
                {"name": "registry.example.com/kgents", **parts(self.images["kgents"])},
                {"name": "docker.io/library/nats", **parts(self.images["nats"])},
            ],
            "configMapGenerator": [
                {
                    "name": "kgents-settings",
                    "behavior": "merge",
                    "literals": [f"KGENTS_METER_URL=http://kgents-meter.{ELSEWHERE}:8888"],
                }
            ],
            "patches": [
                *({"patch": json.dumps(delete), "target": each} for each in LEFT_OUT),
                {"patch": json.dumps(issuer), "target": {"kind": "Certificate", "name": "kgents"}},
                {"patch": json.dumps(elsewhere), "target": {"kind": "NetworkPolicy", "name": "kgents-database"}},
                {"patch": json.dumps(less), "target": {"kind": "Deployment", "name": "kgents-api"}},
            ],
        }
        (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
        return folder

    def typed(self, block: str, **environment: str) -> CompletedProcess[str]:
        ours = block.replace("deploy/overlays/production", str(self.overlay()))
        ours = ours.replace("kgents secrets check", f"kgents secrets check --namespace {SPACE}")
        return typed(ours, self.cluster.environment | environment, ROOT, seconds=900)

    def meter(self) -> httpx2.Client:
        return Installation(self.cluster, self.images, namespace=ELSEWHERE).meter()

    def make_meter(self) -> None:
        """One in a namespace of its own, with nothing else there."""
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ELSEWHERE}}
        self.cluster.apply(space, secret(ELSEWHERE, "kgents-meter-secrets", {"KGENTS_METER_TOKEN": self._meter_token}))
        for name in ("service-account", "service", "stateful-set"):
            made = yaml.safe_load((ROOT / "deploy" / "components" / "meter" / f"{name}.yaml").read_text())
            made["metadata"]["namespace"] = ELSEWHERE
            if name == "stateful-set":
                made["spec"]["template"]["spec"]["containers"][0]["image"] = self.images["kgents"]
            self.cluster.apply(made)
        self.cluster.kubectl("rollout", "status", "statefulset/kgents-meter", f"-n{ELSEWHERE}", "--timeout=100s")

    def make_database(self) -> None:
        """An empty one, in the PostgreSQL beside it, which lets its pods in."""
        mine = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SPACE}}}
        postgres = {"matchLabels": {"app.kubernetes.io/name": "kgents-postgres"}}
        self.cluster.apply(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": SPACE, "namespace": NAMESPACE},
                "spec": {"podSelector": postgres, "policyTypes": ["Ingress"], "ingress": [{"from": [mine]}]},
            }
        )
        sql(self._beside, f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        sql(self._beside, f"CREATE DATABASE {DATABASE}")

    def make_secrets(self) -> None:
        """As docs/operations/deploy.md has them, with a database of its own in the PostgreSQL beside it."""
        server = f"kgents-postgres.{NAMESPACE}:5432/{DATABASE}"
        owner, app = (self._beside.secret("kgents-postgres-secrets", name) for name in ("owner", "app"))
        users = ("cluster", "system", "api", "worker", "backup")
        values = {
            "kgents-migrate-secrets": {"KGENTS_DATABASE_OWNER_URL": f"postgresql://kgents_owner:{owner}@{server}"},
            "kgents-api-secrets": {
                "KGENTS_DATABASE_URL": f"postgresql://kgents_api:{app}@{server}",
                "KGENTS_PEPPER": secrets.token_hex(32),
                "KGENTS_METER_TOKEN": self._meter_token,
            },
            "kgents-nats-secrets": {user: secrets.token_hex(24) for user in users},
        }
        self.cluster.apply(*(secret(SPACE, name, data) for name, data in values.items()))


def secret(space: str, name: str, data: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": space}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


@pytest.fixture(scope="module")
def certificates(cluster: Cluster) -> Iterator[None]:
    """A real cert-manager, and an authority of the company's own, which is no public one."""
    kinds.bring(cluster)
    ours = "KGENTS_TEST_KUBECONFIG" not in os.environ  # else it is there
    running = processes.start("cert-manager", [build.build() / "cert-manager", layout.KUBECONFIG]) if ours else None
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cert-manager"}}
    cluster.apply(space, cluster_issuer("self-signed", {"selfSigned": {}}))
    authority = {
        "isCA": True,
        "commonName": "company",
        "secretName": "company",
        "issuerRef": {"kind": "ClusterIssuer", "name": "self-signed"},
    }
    cluster.apply(
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": {"name": "company", "namespace": "cert-manager"},
            "spec": authority,
        },
        cluster_issuer("company", {"ca": {"secretName": "company"}}),
    )
    yield
    if running:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(10)


def cluster_issuer(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def production(installation: Installation, certificates: None) -> Iterator[Production]:
    """The overlay's objects, rolled out; nobody serves its Gateway yet."""
    made = Production(installation)
    for space in (SPACE, ELSEWHERE):
        made.cluster.kubectl("wait", f"namespace/{space}", "--for=delete", "--timeout=100s")  # of an earlier run
    made.cluster.kubectl("create", "namespace", SPACE)
    try:
        made.make_database()
        made.make_meter()
        made.make_secrets()
        done = made.cluster.kgents("deploy", f"--overlay={made.overlay()}", "--no-wait", f"--timeout={SECONDS}")
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        made.cluster.kubectl("delete", "namespace", SPACE, ELSEWHERE, "--wait=false", "--ignore-not-found")
        made.cluster.kubectl("delete", "networkpolicy", SPACE, f"-n{NAMESPACE}", "--ignore-not-found")


@pytest.fixture(scope="module")
def deployed(production: Production, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CompletedProcess[str]]:
    """What came of the document's commands, with a gateway as a controller of its class would set one up."""
    binary = nginx.find_binary()
    assert binary, "there is no nginx"
    folder = tmp_path_factory.mktemp("gateway")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (folder / name).write_text(production.secret("kgents-tls", name))
    upstream = f"{production.address('kgents-api')}:80"
    running = Nginx(binary, folder, [upstream], host=ADDRESS, port=443, secured=True)
    try:
        status = {"status": {"addresses": [{"type": "IPAddress", "value": ADDRESS}]}}
        where = ("gateway/kgents", f"-n{SPACE}", "--subresource=status")
        production.cluster.kubectl("patch", *where, "--type=merge", f"--patch={json.dumps(status)}")
        (block,) = blocks(DOCUMENT, "sh", "### Check, deploy, look")
        kubeconfig = production.cluster.named("production", folder / "kubeconfig")
        yield production.typed(block, KUBECONFIG=str(kubeconfig), SSL_CERT_FILE=str(folder / "ca.crt"))
    finally:
        running.stop()


def test_it_is_healthy_through_its_gateway(deployed: CompletedProcess[str]) -> None:
    assert deployed.returncode == 0, deployed.stderr
    assert f"asked through gateway/kgents (https://{HOST}:443):" in deployed.stderr
    for name in ("sql", "nats", "meter"):
        assert f"{name}: connected" in deployed.stderr


@pytest.mark.usefixtures("deployed")
def test_its_gateway_leads_from_http_to_https(production: Production) -> None:
    trusted = ssl.create_default_context(cadata=production.secret("kgents-tls", "ca.crt"))
    named = {"Host": HOST}
    with httpx2.Client(verify=trusted, trust_env=False, timeout=10) as client:
        plain = client.get(f"http://{ADDRESS}/health", headers=named)
        assert (plain.status_code, plain.headers["location"]) == (301, f"https://{HOST}/health")
        secured = client.get(f"https://{ADDRESS}/health", headers=named, extensions={"sni_hostname": HOST})
        assert secured.status_code == 200
        assert "max-age=" in secured.headers["strict-transport-security"]


def test_its_secrets_are_complete_and_a_second_deployment_would_change_nothing(deployed: CompletedProcess[str]) -> None:
    assert "KGENTS_METER_TOKEN" in deployed.stdout
    assert "nothing would change" in deployed.stdout


@pytest.mark.usefixtures("deployed")
def test_every_workload_has_its_replicas(production: Production) -> None:
    found = {
        each["metadata"]["name"]: each["status"].get("readyReplicas", 0)
        for kind in ("deployments", "statefulsets")
        for each in production.cluster.get(kind, namespace=SPACE)["items"]
    }
    assert found == {"kgents-api": 2, "kgents-worker": 2, "kgents-nats": 3}


@pytest.mark.usefixtures("deployed")
def test_every_certificate_was_issued(production: Production) -> None:
    found = production.cluster.get("certificates.cert-manager.io", namespace=SPACE)["items"]
    ready = {each["metadata"]["name"]: condition(each, "Ready") is not None for each in found}
    assert ready == dict.fromkeys(("kgents", "kgents-nats", "kgents-nats-authority"), True)


@pytest.mark.usefixtures("deployed")
def test_the_bus_talks_tls_with_a_certificate_of_its_own_authority(production: Production) -> None:
    trusted = ssl.create_default_context(cadata=production.secret("kgents-nats-tls", "ca.crt"))
    with socket.create_connection((production.address("kgents-nats"), 4222), timeout=10) as plain:
        said = json.loads(plain.makefile("rb").readline().removeprefix(b"INFO "))
        assert said["tls_required"]
        with trusted.wrap_socket(plain, server_hostname="kgents-nats") as secured:
            assert secured.version() == "TLSv1.3"


@pytest.mark.usefixtures("deployed")
def test_usage_goes_over_the_bus_to_the_meter_elsewhere(production: Production) -> None:
    with tenant_of(production) as tenant:
        run = tenant.run("one two three")
        assert run["status"] == "completed"
        production.settled()
        wait_until(lambda: production.metered(tenant.id)["runs"] == 1, what="the meter has the run")


@pytest.mark.usefixtures("deployed")
def test_a_backup_is_taken_over_tls(production: Production) -> None:
    where = f"-n{SPACE}"
    production.cluster.kubectl("create", "job", where, "--from=cronjob/kgents-nats-backup", "backup-now")
    production.cluster.kubectl("wait", "job/backup-now", where, "--for=condition=Complete", f"--timeout={SECONDS}s")
    assert "KGENTS_USAGE" in production.cluster.kubectl("logs", where, "job/backup-now")
