"""TLS for the metrics page: what the variables mean together, and that a contradiction ends the start."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from queueproxy.net.keypair import TlsFailed
from queueproxy.net.scrapetls import context
from queueproxy.otlp import ScrapeTls
from tests.support.authority import certificates


@pytest.fixture
def pair(tmp_path: Path) -> ScrapeTls:
    ca, certificate, key = certificates(tmp_path, ["127.0.0.1"])
    assert ca.parent == certificate.parent
    return ScrapeTls(cert=str(certificate), key=str(key))


@pytest.mark.qp("QP-241")
def test_a_pair_is_enough(pair: ScrapeTls) -> None:
    made = context(pair)
    assert made is not None and made.verify_mode is ssl.CERT_NONE
    assert made.minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.qp("QP-241")
def test_nothing_named_is_cleartext() -> None:
    assert context(ScrapeTls(min_version="1.2")) is None


@pytest.mark.qp("QP-241")
@pytest.mark.parametrize(("client_auth", "mode"), [("optional", ssl.CERT_OPTIONAL), ("require", ssl.CERT_REQUIRED)])
def test_clients_are_asked_for_a_certificate(pair: ScrapeTls, client_auth: str, mode: ssl.VerifyMode) -> None:
    ca = str(next(Path(pair.cert).parent.glob("*ca*")))
    made = context(pair._replace(client_auth=client_auth, client_ca_file=ca, min_version="1.2"))
    assert made is not None and made.verify_mode is mode
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2 and made.get_ca_certs()


@pytest.mark.qp("QP-010", "QP-241")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": ""}, "must be set together"),
        ({"cert": ""}, "must be set together"),
        ({"client_auth": "perhaps"}, "must be none, optional or require"),
        ({"client_auth": "require"}, "CLIENT_CA_FILE must be set together"),
        ({"client_ca_file": "ca"}, "CLIENT_CA_FILE must be set together"),
        ({"cert": "", "key": "", "client_auth": "require", "client_ca_file": "ca"}, "client authentication needs"),
        ({"min_version": "1.1"}, "invalid METRICS_PROMETHEUS_TLS_MIN_VERSION"),
        ({"cipher_suites": "ROT13"}, "invalid METRICS_PROMETHEUS_TLS_CIPHER_SUITES"),
        ({"cert": "/nowhere"}, "No such file"),
        ({"client_auth": "require", "client_ca_file": "/nowhere"}, "No such file"),
    ],
)
def test_what_cannot_be_meant_ends_the_start(pair: ScrapeTls, changes: dict[str, str], reason: str) -> None:
    with pytest.raises(TlsFailed) as failed:
        context(pair._replace(**changes))
    assert reason in failed.value.reason and failed.value.message == "Failed to setup meter provider"
