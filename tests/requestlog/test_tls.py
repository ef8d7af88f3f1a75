"""What a template sees of a TLS connection; the ssl objects are real."""

import ssl
import subprocess
from pathlib import Path

import pytest

from queueproxy.requestlog.gofmt import printed
from queueproxy.requestlog.tls import tls_state
from tests.support.request_log import line


def handshaken(tmp_path: Path, version: ssl.TLSVersion) -> ssl.SSLObject:
    """The server's side of a finished handshake, in memory."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=h", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    server.set_alpn_protocols(["http/1.1"])
    server.minimum_version = server.maximum_version = version
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.set_alpn_protocols(["http/1.1"])
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname="h")
    for side in (theirs, ours, theirs, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return ours


@pytest.mark.slow
@pytest.mark.qp("QP-303")
@pytest.mark.parametrize(
    ("version", "number"), [(ssl.TLSVersion.TLSv1_2, 771), (ssl.TLSVersion.TLSv1_3, 772)], ids=["1.2", "1.3"]
)
def test_a_tls_connection_prints_as_a_struct(tmp_path: Path, version: ssl.TLSVersion, number: int) -> None:
    state = tls_state(handshaken(tmp_path, version))
    text = printed(state).decode()
    words = text.strip("{}").split(" ")
    assert text.startswith(f"{{{number} true false ")
    assert 0 < int(words[3]) < 65536 and words[4:6] == ["http/1.1", "true"]


@pytest.mark.slow
@pytest.mark.qp("QP-303")
def test_the_template_of_the_e2e_suite_tells_the_two_apart(tmp_path: Path) -> None:
    assert line("TLS: {{.Request.TLS}}") == b"TLS: <nil>"
    tls = handshaken(tmp_path, ssl.TLSVersion.TLSv1_3)
    assert line("TLS: {{.Request.TLS}}", tls=tls).startswith(b"TLS: {")
    assert line("{{if .Request.TLS}}{{.Request.TLS.Version}}{{end}}", tls=tls) == b"772"


def test_cleartext_has_none() -> None:
    assert tls_state(None) is None
