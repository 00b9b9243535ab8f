"""What the programs that are run are told by our environment."""

from __future__ import annotations

import pytest

from kgents.scan.toolbox import run


def test_a_scanner_is_not_told_to_look_away(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRIVY_SEVERITY", "TRIVY_SKIP_FILES", "HADOLINT_IGNORE", "CKV_SKIP_CHECK", "BC_API_KEY"):
        monkeypatch.setenv(name, "planted")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    monkeypatch.setenv("TRIVY_DB_REPOSITORY", "registry/db")

    told = run(["env"], TRIVY_CONFIG="ours").stdout.splitlines()

    assert not [line for line in told if "planted" in line]
    assert {"HTTPS_PROXY=http://proxy", "TRIVY_DB_REPOSITORY=registry/db", "TRIVY_CONFIG=ours"} <= set(told)
