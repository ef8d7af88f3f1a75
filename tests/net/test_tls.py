"""The present certificate: what loads, what does not and in which words, and when another takes its place."""

import os
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queueproxy.config import TlsSettings
from queueproxy.net import tls
from queueproxy.net.keypair import KeyPair, TlsFailed
from queueproxy.net.tls import LOADED, REPEAT_AFTER, Certificates, certificates
from queueproxy.net.tlsterms import SUITES
from tests.support.tlspair import KINDS, Pair, client_context, made, mount
from tests.support.wires import Clock


class Heard:
    """A log that remembers (level, message)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, message: str, /, **fields: object) -> None:
        self.lines.append(("info", message))

    def warning(self, message: str, /, **fields: object) -> None:
        self.lines.append(("warning", message))

    def error(self, message: str, /, **fields: object) -> None:
        self.lines.append(("error", message))

    def news(self) -> list[tuple[str, str]]:
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("made")
    return {kind: made(folder, f"kn-user-{kind}", kind) for kind in KINDS} | {"other": made(folder, "kn-user-other")}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tls, "monotonic", clock)
    return clock


def opened(directory: Path, settings: TlsSettings | None = None) -> tuple[Certificates, Heard]:
    pair, log = KeyPair.mounted(str(directory)), Heard()
    assert pair is not None
    return certificates(pair, settings or TlsSettings(), ("h2", "http/1.1"), log), log


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a handshake in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True))
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return ends


def shown(server: ssl.SSLContext) -> bytes:
    der = shake(server, client_context())[0].getpeercert(binary_form=True)
    assert der is not None
    return ssl.DER_cert_to_PEM_cert(der).encode()


# -- what a client meets


@pytest.mark.slow
@pytest.mark.qp("QP-310", "QP-320")
@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_key_is_served_and_said_once(kind: str, pairs: dict[str, Pair], tmp_path: Path) -> None:
    held, log = opened(mount(tmp_path / "certs", pairs[kind]))
    assert shown(held.context) == pairs[kind].certificate
    assert log.news() == [("info", LOADED)]
    assert not held.look()
    assert log.news() == []


@pytest.mark.qp("QP-310")
def test_the_line_is_the_one_that_suites_count() -> None:
    assert LOADED == "Certificate and/or key have changed on disk and were reloaded."


@pytest.mark.qp("QP-321", "QP-322", "QP-327")
def test_the_default_is_tls_1_3_our_order_of_alpn_and_no_client_certificate(
    pairs: dict[str, Pair], tmp_path: Path
) -> None:
    held, _ = opened(mount(tmp_path / "certs", pairs["ec"]))
    ours, theirs = shake(held.context, client_context(alpn=("http/1.1", "h2")))
    assert (ours.version(), theirs.selected_alpn_protocol()) == ("TLSv1.3", "h2")
    assert held.context.verify_mode is ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        shake(held.context, client_context(newest="1.2"))


@pytest.mark.qp("QP-321")
def test_a_maximum_below_the_minimum_locks_everybody_out(pairs: dict[str, Pair], tmp_path: Path) -> None:
    held, _ = opened(mount(tmp_path / "certs", pairs["ec"]), TlsSettings(max_version="1.2"))
    for client in (client_context(), client_context(newest="1.2")):
        with pytest.raises(ssl.SSLError):
            shake(held.context, client)


@pytest.mark.qp("QP-328")
def test_every_suite_that_go_knows_can_be_had(pairs: dict[str, Pair], tmp_path: Path) -> None:
    for kind, letters in (("ec", "ECDSA"), ("rsa", "RSA")):
        directory = mount(tmp_path / kind, pairs[kind])
        for name, ours in tls_suites(letters).items():
            held, _ = opened(directory, TlsSettings("1.2", "1.2", name))
            client = client_context(newest="1.2")
            client.set_ciphers("ALL")
            assert (shake(held.context, client)[0].cipher() or ("",))[0] == ours


def tls_suites(letters: str) -> dict[str, str]:
    return {name: ours for name, ours in SUITES.items() if f"_{letters}_" in name}


# -- what does not load


def encrypted(pair: Pair, folder: Path) -> bytes:
    """The key under a passphrase, with which a careless server would ask its terminal."""
    source, target = folder / "plain", folder / "encrypted"
    source.write_bytes(pair.key)
    command = ["openssl", "pkey", "-in", source, "-aes256", "-passout", "pass:secret", "-out", target]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return target.read_bytes()


SPOILT: dict[str, tuple[Callable[[dict[str, Pair], Path], Pair], str]] = {
    "another key": (
        lambda pairs, _: Pair(pairs["ec"].certificate, pairs["other"].key),
        "tls: private key does not match public key",
    ),
    "a key of another kind": (
        lambda pairs, _: Pair(pairs["ec"].certificate, pairs["rsa"].key),
        "tls: private key type does not match public key type",
    ),
    "empty files": (lambda pairs, _: Pair(b"", b""), "tls: failed to find any PEM data in certificate input"),
    "garbage for a certificate": (
        lambda pairs, _: Pair(b"\0\xff garbage", pairs["ec"].key),
        "tls: failed to find any PEM data in certificate input",
    ),
    "garbage for a key": (
        lambda pairs, _: Pair(pairs["ec"].certificate, b"garbage"),
        "tls: failed to find any PEM data in key input",
    ),
    "files exchanged": (
        lambda pairs, _: Pair(pairs["ec"].key, pairs["ec"].certificate),
        'tls: failed to find "CERTIFICATE" PEM block in certificate input',
    ),
    "half a certificate": (
        lambda pairs, _: Pair(pairs["ec"].certificate[:200], pairs["ec"].key),
        "tls: failed to parse certificate or private key: ",
    ),
    "half a key": (
        lambda pairs, _: Pair(pairs["ec"].certificate, pairs["ec"].key[:100]),
        "tls: failed to parse certificate or private key: ",
    ),
    "an encrypted key": (
        lambda pairs, folder: Pair(pairs["ec"].certificate, encrypted(pairs["ec"], folder)),
        "tls: failed to parse certificate or private key: ",
    ),
}


@pytest.mark.qp("QP-324")
@pytest.mark.parametrize(("spoil", "words"), SPOILT.values(), ids=SPOILT.keys())
def test_a_broken_pair_at_start_is_fatal(
    spoil: Callable[[dict[str, Pair], Path], Pair], words: str, pairs: dict[str, Pair], tmp_path: Path
) -> None:
    directory = mount(tmp_path / "certs", spoil(pairs, tmp_path))
    with pytest.raises(TlsFailed) as caught:
        opened(directory)
    assert caught.value.message == "failed to create certWatcher"
    assert caught.value.reason.startswith(f"failed to parse certificate: {words}")


@pytest.mark.qp("QP-323")
@pytest.mark.parametrize(("spoil", "words"), SPOILT.values(), ids=SPOILT.keys())
def test_a_broken_pair_later_leaves_the_old_one_and_says_so(
    spoil: Callable[[dict[str, Pair], Path], Pair],
    words: str,
    pairs: dict[str, Pair],
    tmp_path: Path,
    clock: Clock,
) -> None:
    directory = mount(tmp_path / "certs", pairs["ec"])
    held, log = opened(directory)
    before = held.context
    log.news()
    mount(directory, spoil(pairs, tmp_path))
    assert not held.look() and held.context is before
    ((level, said),) = log.news()
    assert level == "error" and said.startswith(f"failed to parse certificate: {words}")
    clock.now += REPEAT_AFTER - 1
    assert not held.look()
    assert log.news() == [], "not with every look"
    clock.now += 1
    assert not held.look()
    assert log.news() == [("error", said)], "but each minute, as upstream"
    mount(directory, pairs["other"])
    assert held.look() and held.context is not before
    assert log.news() == [("info", LOADED)]
    assert shown(held.context) == pairs["other"].certificate


@pytest.mark.qp("QP-323")
@pytest.mark.parametrize(("name", "which"), [("tls.crt", "certificate"), ("tls.key", "key")])
def test_a_file_that_goes_away_is_missed_and_its_return_is_nothing_new(
    name: str, which: str, pairs: dict[str, Pair], tmp_path: Path, clock: Clock
) -> None:
    directory = mount(tmp_path / "certs", pairs["ec"])
    held, log = opened(directory)
    log.news()
    path = directory / name
    path.unlink()
    assert not held.look()
    assert log.news() == [("error", f"failed to load {which} file in {path}: open {path}: no such file or directory")]
    path.symlink_to(f"..data/{name}")
    assert not held.look()
    assert log.news() == []
    path.unlink()
    assert not held.look()
    assert len(log.news()) == 1, "a new trouble is said at once"


@pytest.mark.qp("QP-323")
def test_a_change_in_place_with_the_old_times_and_sizes_is_seen(pairs: dict[str, Pair], tmp_path: Path) -> None:
    for name, data in (("tls.crt", pairs["ec"].certificate), ("tls.key", pairs["ec"].key)):
        (tmp_path / name).write_bytes(data.ljust(4096))
    held, _ = opened(tmp_path)
    for name, data in (("tls.crt", pairs["other"].certificate), ("tls.key", pairs["other"].key)):
        before = (tmp_path / name).stat()
        (tmp_path / name).write_bytes(data.ljust(4096))
        os.utime(tmp_path / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert held.look()
    assert shown(held.context) == pairs["other"].certificate


@pytest.mark.qp("QP-323")
def test_a_swap_between_reading_and_loading_does_not_fool_us(pairs: dict[str, Pair], tmp_path: Path) -> None:
    """What was loaded is what was read, whatever happened in between; the look after next finds nothing new."""
    directory = mount(tmp_path / "certs", pairs["ec"])
    held, log = opened(directory)
    make = held._make
    swaps = iter((pairs["other"],))

    def swapping(pair: KeyPair) -> ssl.SSLContext:
        for newer in swaps:
            mount(directory, newer)
        return make(pair)

    held._make = swapping
    mount(directory, pairs["rsa"])
    log.news()
    assert held.look()
    assert shown(held.context) == pairs["other"].certificate
    assert log.news() == [("info", LOADED)]
    assert not held.look()


@pytest.mark.qp("QP-323")
def test_files_that_never_stand_still_leave_the_old_pair(pairs: dict[str, Pair], tmp_path: Path) -> None:
    directory = mount(tmp_path / "certs", pairs["ec"])
    held, log = opened(directory)
    make, before = held._make, held.context
    turn = [pairs["rsa"], pairs["other"]]

    def restless(pair: KeyPair) -> ssl.SSLContext:
        mount(directory, turn[0])
        turn.reverse()
        return make(pair)

    held._make = restless
    mount(directory, pairs["ed25519"])
    log.news()
    assert not held.look() and held.context is before
    assert log.news() == [("error", "failed to load certificate and key: they keep changing")]


@pytest.mark.qp("QP-321", "QP-328")
@pytest.mark.parametrize(
    "settings",
    [TlsSettings(min_version="3"), TlsSettings(cipher_suites="x"), TlsSettings(curve_preferences="x")],
    ids=["version", "suite", "curve"],
)
def test_settings_that_make_no_sense_are_fatal_before_the_files_are(settings: TlsSettings, tmp_path: Path) -> None:
    directory = mount(tmp_path / "certs", Pair(b"", b""))
    with pytest.raises(TlsFailed) as caught:
        opened(directory, settings)
    assert caught.value.message == "Failed to read TLS configuration from environment"


@pytest.mark.qp("QP-328")
def test_a_curve_that_this_library_lacks_is_said_or_fatal(
    pairs: dict[str, Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = mount(tmp_path / "certs", pairs["ec"])
    known: Any = tls.groups._is_known
    monkeypatch.setattr(tls.groups, "_is_known", lambda name: name != "X25519MLKEM768" and known(name))
    _, log = opened(directory, TlsSettings(curve_preferences="X25519MLKEM768,P-256"))
    level, said = log.news()[0]
    assert level == "warning" and said.endswith("offers P-256 only")
    with pytest.raises(TlsFailed) as caught:
        opened(directory, TlsSettings(curve_preferences="X25519MLKEM768"))
    assert caught.value.message == "Failed to read TLS configuration from environment"
