"""TLS on 8112 as its clients see it: openssl, curl and Python against the real process (contract 9)."""

import hashlib
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import network_namespace
from tests.support.rawhttp import Wire
from tests.support.sidecar import BOTH_LOOPS, Pod, Sidecar, environment, one_pod
from tests.support.tlspair import PORT, Pair, client_context, made, mount, served, shaken

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("tls")]

LOADED = "Certificate and/or key have changed on disk and were reloaded."
RELOADED_WITHIN = 60.0  # contract; it looks every 10 s
BAD_REQUEST = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


# Half a minute of waiting each; the other loop has its turn in `make test-long`.
ONE_LOOP_IS_ENOUGH_FOR_NOW = pytest.mark.parametrize(
    "loop", ["uvloop", pytest.param("asyncio", marks=pytest.mark.long)]
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return made(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def certs(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mount(tmp_path_factory.mktemp("volume") / "certs", pair)


@pytest.fixture(scope="module")
def lasting(loop: str, certs: Path) -> Iterator[Pod]:
    with one_pod(loop=loop, QUEUEPROXY_CERTIFICATES=str(certs), CONTAINER_CONCURRENCY="2") as pod:
        yield pod


@pytest.fixture
def pod(lasting: Pod) -> Iterator[Pod]:
    lasting.fresh()
    yield lasting
    lasting.fresh()


_opened: list[Wire] = []


@pytest.fixture(autouse=True)
def hung_up() -> Iterator[None]:
    yield
    for wire in _opened:
        wire.close()
    _opened.clear()


def secure(pod: Pod, context: ssl.SSLContext | None = None, *, receive: int = 0) -> Wire:
    wire = shaken(pod.sidecar.connect(PORT, receive=receive), context)
    _opened.append(wire)
    return wire


def exchanged(pod: Pod, wire: Wire, target: str = "/") -> bytes:
    """One request through everything; the body of its answer."""
    wire.ask("GET", target)
    asked = pod.origin.request()
    assert asked.target == target.encode()
    asked.wire.answer(body=b"well")
    return wire.response().body


# -- who may talk


@BOTH_LOOPS
@pytest.mark.qp("QP-322", "QP-327", "QP-321")
def test_openssl_finds_tls_1_3_alpn_and_no_wish_for_a_certificate(pod: Pod, pair: Pair) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", "-alpn", "http/1.1,http/1.0", "-showcerts"]
    ran = pod.namespace.run(command, input=b"", capture_output=True, timeout=30)
    said = ran.stdout.decode()
    assert ran.returncode == 0, ran.stderr
    assert "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384" in said
    assert "ALPN protocol: http/1.1" in said
    assert "No client certificate CA names sent" in said
    assert pair.certificate.decode().strip() in said
    assert "Secure Renegotiation IS NOT supported" in said


@BOTH_LOOPS
@pytest.mark.qp("QP-325")
def test_curl_is_served_and_the_app_sees_a_plain_request(pod: Pod, certs: Path) -> None:
    url = f"https://data-plane.knative.dev:{PORT}/curl?x=1"
    command = ["curl", "-sS", "--max-time", "30", "--cacert", str(certs / "tls.crt"), "-w", " %{http_code}"]
    command += ["--resolve", f"data-plane.knative.dev:{PORT}:127.0.0.1", url]
    curl = pod.namespace.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    asked = pod.origin.request()
    assert asked.target == b"/curl?x=1"
    assert asked.message.get("host") == f"data-plane.knative.dev:{PORT}".encode()
    assert asked.message.get("x-forwarded-for") == b"127.0.0.1"
    asked.wire.answer(body=b"hello")
    out, error = curl.communicate(timeout=30)
    assert (out, error) == (b"hello 200", b"")


@BOTH_LOOPS
@pytest.mark.qp("QP-321")
def test_tls_1_2_is_refused_unless_the_platform_allows_it(pod: Pod) -> None:
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        secure(pod, client_context(newest="1.2"))
    pod.served()


@BOTH_LOOPS
@pytest.mark.qp("QP-322")
@pytest.mark.parametrize("alpn", [(), ("http/1.0", "http/1.1")], ids=["no-alpn", "ours-is-second"])
def test_a_client_gets_http_1_1_with_alpn_or_without(pod: Pod, alpn: tuple[str, ...]) -> None:
    wire = secure(pod, client_context(alpn=alpn))
    assert isinstance(wire.sock, ssl.SSLSocket)
    assert wire.sock.selected_alpn_protocol() == ("http/1.1" if alpn else None)
    assert exchanged(pod, wire) == b"well"
    wire.close()


@BOTH_LOOPS
@pytest.mark.qp("QP-326")
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE", "PATCH"])
def test_cleartext_http_is_told_so_in_gos_words(pod: Pod, method: str) -> None:
    wire = pod.sidecar.connect(PORT)
    wire.ask(method, "/", body=b"x" * 5000 if method == "POST" else b"")
    assert wire.rest() == BAD_REQUEST
    wire.close()
    assert pod.origin.idle


@BOTH_LOOPS
@pytest.mark.qp("QP-326")
def test_cleartext_http_byte_by_byte_is_told_so_as_well(pod: Pod) -> None:
    wire = pod.sidecar.connect(PORT)
    for byte in b"GET /":
        wire.send(bytes([byte]))
        pod.noticed()
    assert wire.rest() == BAD_REQUEST
    wire.close()


GARBAGE = {
    "zeros": b"\0" * 64,
    "a word that is no method": b"HELLO WORLD",
    "h2c": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a record longer than records are": b"\x16\x03\x01\xff\xff" + b"\0" * 40_000,
    "a record that is no hello": b"\x16\x03\x01\x00\x05hello",
    "an alert": b"\x15\x03\x03\x00\x02\x01\x00",
    "an empty record": b"\x16\x03\x01\x00\x00",
}


@BOTH_LOOPS
@pytest.mark.parametrize("said", GARBAGE.values(), ids=GARBAGE.keys())
def test_what_is_neither_ends_the_connection_and_nothing_else(pod: Pod, said: bytes) -> None:
    wire = pod.sidecar.connect(PORT)
    wire.send(said)
    wire.half_close()
    try:
        answer = wire.rest()
    except ConnectionResetError:
        answer = b""
    assert not answer.startswith(b"HTTP"), answer
    assert len(answer) <= 7, "at most an alert"
    wire.close()
    fine = secure(pod)
    assert exchanged(pod, fine) == b"well"
    fine.close()


@BOTH_LOOPS
def test_a_hello_in_single_bytes_is_a_hello(pod: Pod) -> None:
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(theirs, ours)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    wire = pod.sidecar.connect(PORT)
    for byte in ours.read():
        wire.send(bytes([byte]))
    while True:
        assert wire.more()
        theirs.write(wire.held)
        wire.held = b""
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            continue
        break
    # With the last message of the handshake comes the request.
    tls.write(b"GET /one HTTP/1.1\r\nHost: a.example\r\n\r\n")
    wire.send(ours.read())
    asked = pod.origin.request()
    assert asked.target == b"/one"
    asked.wire.answer()
    wire.close()


# -- the same chain


@BOTH_LOOPS
@pytest.mark.qp("QP-325", "QP-143", "QP-155")
def test_one_limiter_and_one_count_for_both_ports(pod: Pod) -> None:
    first, second, third = secure(pod), pod.client(), secure(pod)
    first.ask("GET", "/first")
    one = pod.origin.request()
    second.ask("GET", "/second")
    two = pod.origin.request()
    third.ask("GET", "/third")
    pod.noticed()
    assert pod.origin.idle, "two slots, both taken, one by each port"
    stat = pod.sidecar.whole_stat()
    assert stat["average_concurrent_requests"] == pytest.approx(3.0, abs=0.05)
    one.wire.answer(body=b"1")
    three = pod.origin.request()
    assert three.target == b"/third"
    two.wire.answer(body=b"2")
    three.wire.answer(body=b"3")
    assert [wire.response().body for wire in (first, second, third)] == [b"1", b"2", b"3"]
    assert pod.sidecar.all_zero()
    first.close()
    third.close()


@BOTH_LOOPS
@pytest.mark.qp("QP-110", "QP-043")
def test_probes_are_answered_on_both_ports(pod: Pod) -> None:
    probe = ("User-Agent: Knative-Activator-Probe", "K-Network-Probe: queue")
    assert pod.sidecar.get("/healthz", *probe).body == b"queue"
    wire = secure(pod)
    wire.ask("GET", "/healthz", *probe)
    assert wire.response().body == b"queue"
    wire.close()
    assert pod.sidecar.get("/nothing", port=8022).status == 404
    assert pod.sidecar.stat()["pod_name"]
    assert pod.origin.idle


@BOTH_LOOPS
@pytest.mark.qp("QP-325")
def test_large_bodies_arrive_whole_both_ways(pod: Pod) -> None:
    sent = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(40_000))
    wire = secure(pod)
    wire.ask("POST", "/large", body=sent)
    asked = pod.origin.request()
    assert asked.message.body == sent
    asked.wire.answer(body=sent[::-1])
    assert wire.response().body == sent[::-1]
    assert exchanged(pod, wire) == b"well", "and the connection is kept"
    wire.close()


@BOTH_LOOPS
@pytest.mark.qp("QP-325")
def test_a_last_answer_reaches_a_client_that_reads_late(pod: Pod) -> None:
    """Closing waits for the reader, not for asyncio's 30 s, and ends with close_notify: nothing looks cut off."""
    wire = secure(pod, receive=4096)
    wire.ask("GET", "/last", "Connection: close")
    asked = pod.origin.request()
    body = b"z" * 3_000_000
    asked.wire.answer(body=body)
    pod.noticed()
    assert wire.response().body == body
    assert wire.rest() == b""  # a missing close_notify would raise here
    wire.close()


@BOTH_LOOPS
@pytest.mark.qp("QP-325", "QP-080")
def test_an_upgraded_connection_relays_and_passes_on_the_apps_end(pod: Pod) -> None:
    wire = secure(pod)
    wire.ask("GET", "/ws", "Connection: Upgrade", "Upgrade: websocket")
    asked = pod.origin.request()
    asked.wire.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert wire.head().status == 101
    wire.send(b"ping")
    assert asked.wire.exactly(4) == b"ping"
    asked.wire.send(b"pong")
    assert wire.exactly(4) == b"pong"
    asked.wire.half_close()
    assert wire.rest() == b"", "the app has said its last: close_notify"
    wire.send(b"still here")
    assert asked.wire.exactly(10) == b"still here"
    wire.close()
    assert asked.wire.gone()


@BOTH_LOOPS
@pytest.mark.qp("QP-325")
def test_a_refused_upload_gets_its_answer_and_an_end(pod: Pod) -> None:
    """The answer leaves while the upload goes on; our side of TLS ends, theirs is still read."""
    wire = secure(pod)
    wire.send(
        b"POST /up HTTP/1.1\r\nHost: a.example\r\nContent-Length: 900000\r\nConnection: close\r\n\r\n" + b"x" * 1000
    )
    asked = pod.origin.began()
    asked.wire.answer(413, "Connection: close", body=b"too large")
    answer = wire.response()
    assert (answer.status, answer.body) == (413, b"too large")
    wire.send(b"x" * 1000)
    assert wire.gone()
    wire.close()


@BOTH_LOOPS
@pytest.mark.qp("QP-325", "QP-053")
def test_a_broken_request_is_refused_as_on_the_other_port(pod: Pod) -> None:
    answers = []
    for wire in (secure(pod), pod.client()):
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        answers.append(wire.rest())
        wire.close()
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 400 ")


@BOTH_LOOPS
@pytest.mark.qp("QP-325", "QP-086")
def test_a_client_that_leaves_takes_its_request_along(pod: Pod) -> None:
    wire = secure(pod)
    wire.ask("GET", "/gone")
    asked = pod.origin.request()
    wire.close()
    assert asked.wire.gone()
    assert pod.sidecar.all_zero()


@BOTH_LOOPS
@pytest.mark.qp("QP-350", "QP-353")
def test_idlers_liars_and_stallers_do_not_keep_others_from_a_handshake(pod: Pod) -> None:
    """More than fits of each kind; the newcomer is served while all of them are there."""
    ours = ssl.MemoryBIO()
    tls = client_context().wrap_bio(ssl.MemoryBIO(), ours)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = ours.read()
    crowd: list[Wire] = []
    try:
        before = pod.sidecar.rss
        for number in range(700):
            wire = pod.sidecar.connect(PORT)
            crowd.append(wire)
            if number % 7 == 0:
                wire.send(hello)  # and never another word
            elif number % 7 == 1:
                wire.send(hello[: len(hello) // 2])
        fine = secure(pod)
        assert exchanged(pod, fine) == b"well"
        fine.close()
        pod.served()
        assert pod.sidecar.rss - before < 100_000_000
    finally:
        for wire in crowd:
            wire.close()
    lines = [event for event in pod.sidecar.log if event["message"] == "http: TLS handshake error"]
    assert len(lines) < 60, "one a second, however many fail"


# -- certificates come and go


def until_served(pod: Pod, pair: Pair) -> None:
    """Waits for the line, then looks."""
    wire = secure(pod)
    assert served(wire) == pair.certificate
    wire.close()


@ONE_LOOP_IS_ENOUGH_FOR_NOW
@pytest.mark.timeout(240)
@pytest.mark.qp("QP-323", "QP-310")
def test_a_new_certificate_is_served_and_old_connections_live_on(loop: str, pair: Pair, tmp_path: Path) -> None:
    directory = mount(tmp_path / "certs", pair)
    other, third = made(tmp_path, "kn-user-other", "rsa"), made(tmp_path, "kn-user-third")
    with one_pod(loop=loop, QUEUEPROXY_CERTIFICATES=str(directory)) as pod:
        sidecar = pod.sidecar

        def loaded() -> int:
            return sum(event["message"] == LOADED for event in sidecar.log)

        assert loaded() == 1, "once at start"
        old = secure(pod)
        assert served(old) == pair.certificate
        old.ask("GET", "/meanwhile")
        asked = pod.origin.request()
        mount(directory, other)
        sidecar.until(lambda: loaded() == 2, RELOADED_WITHIN)
        until_served(pod, other)
        asked.wire.answer(body=b"well")
        assert old.response().body == b"well"
        assert exchanged(pod, old) == b"well"

        mount(directory, Pair(third.certificate, pair.key))
        broken = sidecar.heard("failed to parse certificate", RELOADED_WITHIN)
        assert broken["message"] == "failed to parse certificate: tls: private key does not match public key"
        assert broken["severity"] == "ERROR"
        until_served(pod, other)
        assert exchanged(pod, old) == b"well"
        (directory / "tls.key").unlink()
        gone = sidecar.heard("failed to load key file", RELOADED_WITHIN)
        path = directory / "tls.key"
        assert gone["message"] == f"failed to load key file in {path}: open {path}: no such file or directory"
        until_served(pod, other)

        mount(directory, third)
        sidecar.until(lambda: loaded() == 3, RELOADED_WITHIN)
        until_served(pod, third)
        old.close()
        pod.served()


@pytest.mark.qp("QP-320", "QP-047")
@pytest.mark.parametrize("there", [(), ("tls.crt",), ("tls.key",)], ids=["none", "certificate", "key"])
def test_without_both_files_8112_is_closed_and_nobody_complains(
    there: tuple[str, ...], pair: Pair, tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / name).write_bytes(b"not even looked at")
    changes = {"QUEUEPROXY_CERTIFICATES": str(tmp_path), "QUEUE_PROXY_TLS_MIN_VERSION": "nonsense"}
    with one_pod(**changes) as pod:
        assert not pod.sidecar.listens(PORT)
        assert not [event for event in pod.sidecar.log if event["severity"] not in ("INFO", "DEBUG")]
        pod.served()


@pytest.mark.qp("QP-320")
def test_the_platforms_path_is_where_it_looks(pair: Pair, certs: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, timeout=30).returncode:
        pytest.skip("needs mount namespaces")
    put = (
        f"mount -t tmpfs tls /var/lib && mkdir -p /var/lib/knative/certs && cp -L {certs}/tls.* /var/lib/knative/certs"
    )
    with one_pod(under=("unshare", "--mount", "sh", "-ec", f'{put}; exec "$@"', "sh")) as pod:
        until_served(pod, pair)
        assert pod.sidecar.said("Starting tls server main :8112")


FATAL = {
    "mismatch": ({}, "other key", "failed to create certWatcher", "private key does not match public key"),
    "no pem": ({}, "no pem", "failed to create certWatcher", "failed to find any PEM data in certificate input"),
    "min version": (
        {"QUEUE_PROXY_TLS_MIN_VERSION": "1.1"},
        "",
        "Failed to read TLS configuration from environment",
        'invalid QUEUE_PROXY_TLS_MIN_VERSION "1.1": unsupported TLS version "1.1": must be "1.2" or "1.3"',
    ),
    "curve": (
        {"QUEUE_PROXY_TLS_CURVE_PREFERENCES": "X25519,P-128"},
        "",
        "Failed to read TLS configuration from environment",
        'invalid QUEUE_PROXY_TLS_CURVE_PREFERENCES: unknown curve "P-128"',
    ),
    "loop of links": ({}, "loop", "Failed to verify the file path", "too many levels of symbolic links"),
}


@pytest.mark.qp("QP-324", "QP-321", "QP-328")
@pytest.mark.parametrize(("changes", "spoil", "message", "reason"), FATAL.values(), ids=FATAL.keys())
def test_what_is_wrong_at_start_is_fatal(
    changes: dict[str, str], spoil: str, message: str, reason: str, pair: Pair, tmp_path: Path
) -> None:
    if spoil == "other key":
        pair = Pair(pair.certificate, made(tmp_path).key)
    elif spoil == "no pem":
        pair = Pair(b"garbage", pair.key)
    directory = mount(tmp_path / "certs", pair)
    if spoil == "loop":
        (directory / "tls.key").unlink()
        (directory / "tls.key").symlink_to("tls.key")
    with network_namespace() as namespace:
        sidecar = Sidecar(namespace, environment(QUEUEPROXY_CERTIFICATES=str(directory), **changes))
        try:
            assert sidecar.ended(within=30.0) == 1
        finally:
            sidecar.stop()
    event = sidecar.said(message)
    assert event is not None, sidecar.lines
    assert event["severity"] == "EMERGENCY"
    assert reason in event["error"]
    assert sidecar.said("Starting queue-proxy") is None


@pytest.mark.qp("QP-011")
def test_a_taken_port_is_fatal_in_upstreams_words(certs: Path) -> None:
    with network_namespace() as namespace:
        with namespace.inside():
            taken = socket.create_server(("::", PORT), family=socket.AF_INET6)
        sidecar = Sidecar(namespace, environment(QUEUEPROXY_CERTIFICATES=str(certs)))
        try:
            assert sidecar.ended(within=30.0) == 1
        finally:
            sidecar.stop()
            taken.close()
    event = sidecar.said("Failed to bring up queue-proxy, shutting down.")
    assert event is not None
    assert event["error"] == "main server failed to serve: listen tcp :8112: bind: address already in use"


@pytest.mark.qp("QP-321", "QP-328")
def test_the_platforms_choice_of_versions_suites_and_curves_is_what_clients_get(certs: Path) -> None:
    wanted = {
        "QUEUE_PROXY_TLS_MIN_VERSION": "1.2",
        "QUEUE_PROXY_TLS_CIPHER_SUITES": " TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,, TLS_AES_128_GCM_SHA256",
        "QUEUE_PROXY_TLS_CURVE_PREFERENCES": "CurveP384, P-521",
    }
    with one_pod(QUEUEPROXY_CERTIFICATES=str(certs), **wanted) as pod:

        def said(*options: str) -> str:
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", *options]
            ran = pod.namespace.run(command, input=b"", capture_output=True, timeout=30)
            return (ran.stdout + ran.stderr).decode()

        old = said("-tls1_2")
        assert "New, TLSv1.2, Cipher is ECDHE-ECDSA-CHACHA20-POLY1305" in old
        assert "Server Temp Key: ECDH, secp384r1, 384 bits" in old
        assert "handshake failure" in said("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")
        assert "Server Temp Key: ECDH, secp521r1, 521 bits" in said("-groups", "P-256:P-521")
        assert "handshake failure" in said("-groups", "X25519:P-256")
        assert "New, TLSv1.3" in said()
        assert re.search("alert protocol version|unsupported protocol", said("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"))


# -- the end


@pytest.mark.timeout(180)
@ONE_LOOP_IS_ENOUGH_FOR_NOW
@pytest.mark.qp("QP-325", "QP-283", "QP-284")
def test_a_drain_closes_8112_and_finishes_what_it_has_begun(loop: str, certs: Path) -> None:
    with one_pod(loop=loop, QUEUEPROXY_CERTIFICATES=str(certs)) as pod:
        idle, busy, early = secure(pod), secure(pod), pod.sidecar.connect(PORT)
        busy.ask("GET", "/long")
        asked = pod.origin.request()
        pod.sidecar.signal(signal.SIGTERM)
        pod.sidecar.heard("Shutting down server: main tls", 60.0)
        assert idle.gone() and early.gone()
        assert not pod.sidecar.listens(PORT)
        asked.wire.answer(body=b"well")
        answer = busy.response()
        assert (answer.body, answer.get("connection")) == (b"well", b"close")
        assert busy.rest() == b""
        assert pod.sidecar.ended() == 0
        assert not [line for line in pod.sidecar.lines if not line.startswith("{")], "nothing but the log"
        busy.close()
        idle.close()
        early.close()


@pytest.mark.qp("QP-303")
def test_the_request_log_tells_tls_from_cleartext(certs: Path) -> None:
    config = '{"enableRequestLog":true,"requestLogTemplate":"TLS: {{.Request.TLS}}"}'
    with one_pod(QUEUEPROXY_CERTIFICATES=str(certs), OBSERVABILITY_CONFIG=config) as pod:
        wire = secure(pod)
        assert exchanged(pod, wire) == b"well"
        pod.sidecar.until(lambda: any(line.startswith("TLS: {772 true ") for line in pod.sidecar.output))
        pod.served()
        pod.sidecar.until(lambda: "TLS: <nil>" in pod.sidecar.output)
        wire.close()
