"""Which URLs may be asked for."""

from __future__ import annotations

import pytest

from kgents.agents.tools.egress import EgressRefused, EgressRules

RULES = EgressRules.parse([])


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/",
        "https://example.com:8443/a?b#c",
        "HTTPS://EXAMPLE.COM/",
        "https://bücher.example/",
        "https://a_b.example.com./",
        "https://93.184.216.34/",
        "https://[2606:4700::1111]/",
    ],
)
def test_public_https_is_allowed(url: str) -> None:
    RULES.check_url(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/", "plain http"),
        ("https://example.com:22/", "port"),
        ("https://user:pass@example.com/", "user name"),
        ("ftp://example.com/", "https"),
        ("https://127.0.0.1/", "public address"),
        ("https://127.1/", "URL"),
        ("https:///", "host"),
        ("https://" + "a." * 3000 + "com/", "longer"),
        ("not a url", "https"),
    ],
)
def test_the_rest_is_refused_with_a_reason(url: str, said: str) -> None:
    with pytest.raises(EgressRefused, match=said) as raised:
        RULES.check_url(url)
    assert (raised.value.code, raised.value.status) == ("egress-refused", 422)


@pytest.mark.parametrize(
    ("allow", "url"),
    [
        ("tools.internal", "http://tools.internal:9000/"),
        ("TOOLS.internal", "http://tools.internal./"),
        ("127.0.0.1", "http://127.0.0.1:9000/"),
        ("10.0.0.0/8", "http://10.1.2.3/"),
        ("10.1.2.3/8", "http://10.200.2.3/"),
        ("::1", "http://[::1]:8000/"),
        ("[::1]", "http://[::1]:8000/"),
        ("fd00::/8", "http://[fd12::1]:8000/"),
    ],
)
def test_an_exemption_lifts_the_rules_for_its_host_or_network(allow: str, url: str) -> None:
    EgressRules.parse([allow]).check_url(url)


@pytest.mark.parametrize(
    ("allow", "url"),
    [
        ("tools.internal", "http://other.internal/"),
        ("tools.internal", "http://a.tools.internal/"),
        ("tools.internal", "http://user@tools.internal/"),
        ("tools.internal", "file://tools.internal/"),
        ("127.0.0.1", "http://127.0.0.2/"),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]/"),
    ],
)
def test_an_exemption_lifts_no_more_than_that(allow: str, url: str) -> None:
    with pytest.raises(EgressRefused):
        EgressRules.parse([allow]).check_url(url)


@pytest.mark.parametrize(
    "entry", ["", "https://tools.internal", "tools.internal:9000", "*.internal", "10.0.0.0/33", "a b"]
)
def test_an_exemption_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="KGENTS_EGRESS_ALLOW"):
        EgressRules.parse([entry])
