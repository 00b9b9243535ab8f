"""The cluster's certificates and the kubeconfigs of its parts (https://kubernetes.io/docs/setup/best-practices/certificates/)."""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.layout import API, API_SERVICE, DOMAIN, KUBECONFIG, NODES, RUN

FOLDER = RUN / "pki"
CA = FOLDER / "ca.crt"
FRONT_CA = FOLDER / "front-ca.crt"
SERVICE_ACCOUNTS = FOLDER / "service-accounts.key"
_DAYS = 30

Subject = tuple[str, str]
"""A common name (the user), and an organization (the group) or ''."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that lives as long as this process; its key is written nowhere."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def issue(self, path: Path, subject: Subject, addresses: list[IPv4Address] | None = None, *names: str) -> None:
        """Write PATH.crt and PATH.key: a client's, or where there are addresses a server's, which is a client too."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if addresses else [])]
        builder = _builder(_name(*subject), self.certificate.subject, key).add_extension(
            x509.ExtendedKeyUsage(usages), critical=False
        )
        if addresses:
            alternatives = [*map(x509.IPAddress, addresses), *map(x509.DNSName, names)]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        _write(path.with_name(f"{path.name}.crt"), builder.sign(self.key, hashes.SHA256()).public_bytes(_PEM))
        _write(path.with_name(f"{path.name}.key"), _private(key))


_PEM = serialization.Encoding.PEM


def make() -> None:
    """Write everything, for the processes of the cluster and for who uses it."""
    FOLDER.mkdir(parents=True)
    ca = authority("kgents-test-cluster", CA)
    nodes = [node.address for node in NODES]
    service = "kubernetes.default.svc"
    names = ["localhost", "kubernetes", "kubernetes.default", service, f"{service}.{DOMAIN}"]
    ca.issue(FOLDER / "api", ("kube-apiserver", ""), [*nodes, API_SERVICE, IPv4Address("127.0.0.1")], *names)
    ca.issue(FOLDER / "api-kubelet", ("kube-apiserver-kubelet-client", "system:masters"))
    users = {
        "admin": ("kubernetes-admin", "system:masters"),
        "controller-manager": ("system:kube-controller-manager", ""),
        "scheduler": ("system:kube-scheduler", ""),
        "proxy": ("system:kube-proxy", ""),
        "dns": ("kgents:dns", "system:masters"),
        "metrics": ("kgents:metrics", "system:masters"),
    } | {node.name: (f"system:node:{node.name}", "system:nodes") for node in NODES}
    for name, subject in users.items():
        ca.issue(FOLDER / name, subject)
        kubeconfig(name)
    for node in NODES:
        ca.issue(
            FOLDER / f"{node.name}-server", (f"system:node:{node.name}", "system:nodes"), [node.address], node.name
        )
    ca.issue(FOLDER / "metrics-server", ("metrics-server", ""), [NODES[0].address], "metrics-server.kube-system.svc")
    front = authority("kgents-test-cluster-front", FRONT_CA)
    front.issue(FOLDER / "front", ("front-proxy-client", ""))
    accounts = rsa.generate_private_key(65537, 2048)
    _write(SERVICE_ACCOUNTS, _private(accounts))
    public = accounts.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write(SERVICE_ACCOUNTS.with_suffix(".pub"), public)
    _write(KUBECONFIG, (FOLDER / "admin.kubeconfig").read_bytes())


def kubeconfig(name: str) -> None:
    """Write NAME.kubeconfig for the client certificate of that name, with everything in it."""

    def data(file: str) -> str:
        return base64.b64encode((FOLDER / file).read_bytes()).decode()

    context = "kgents-test"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": API, "certificate-authority-data": data(CA.name)}}],
        "users": [
            {
                "name": name,
                "user": {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")},
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": name}}],
        "current-context": context,
    }
    _write(FOLDER / f"{name}.kubeconfig", yaml.safe_dump(document, sort_keys=False).encode())


def authority(name: str, path: Path) -> Authority:
    """A new one, its certificate at this path."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name, "")
    certificate = (
        _builder(subject, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(path, certificate.public_bytes(_PEM))
    return Authority(key, certificate)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
    )


def _name(common: str, organization: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(parts)


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
