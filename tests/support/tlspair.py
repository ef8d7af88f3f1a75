"""Makes certificates with openssl, puts them where a Secret volume would, and speaks TLS as a client."""

from __future__ import annotations

import secrets
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.rawhttp import Wire

PORT = 8112
KINDS = {
    "ec": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    "rsa": ("-newkey", "rsa:2048"),
    "ed25519": ("-newkey", "ed25519"),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """PEM."""

    certificate: bytes
    key: bytes


def made(folder: Path, name: str = "kn-user-default", kind: str = "ec") -> Pair:
    """A self-signed certificate for the names that Knative's controller puts into one."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl")
    stem = folder / secrets.token_hex(4)
    names = f"subjectAltName=DNS:{name},DNS:data-plane.knative.dev"
    command = ["openssl", "req", "-x509", *KINDS[kind], "-nodes", "-days", "30", "-subj", f"/CN={name}"]
    command += ["-addext", names, "-keyout", f"{stem}.key", "-out", f"{stem}.crt"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return Pair(Path(f"{stem}.crt").read_bytes(), Path(f"{stem}.key").read_bytes())


def mount(directory: Path, pair: Pair) -> Path:
    """Puts the pair there, or exchanges it in one step, as the kubelet does: files, a directory, a renamed symlink."""
    directory.mkdir(exist_ok=True)
    version = directory / f"..{secrets.token_hex(8)}"
    version.mkdir()
    (version / "tls.crt").write_bytes(pair.certificate)
    (version / "tls.key").write_bytes(pair.key)
    (directory / "..data_tmp").symlink_to(version.name)
    (directory / "..data_tmp").rename(directory / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    return directory


def client_context(*, alpn: Sequence[str] = ("http/1.1",), newest: str = "") -> ssl.SSLContext:
    """Believes any certificate: which one came is for the test to look at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if newest == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def shaken(wire: Wire, context: ssl.SSLContext | None = None) -> Wire:
    """The same connection after a handshake; `sock` is then an SSLSocket. An end without close_notify raises."""
    context = context or client_context()
    name = "data-plane.knative.dev"
    return Wire(context.wrap_socket(wire.sock, server_hostname=name, suppress_ragged_eofs=False))


def served(wire: Wire) -> bytes:
    """The certificate that the server of this connection showed, as PEM."""
    assert isinstance(wire.sock, ssl.SSLSocket)
    der = wire.sock.getpeercert(binary_form=True)
    assert der is not None
    return ssl.DER_cert_to_PEM_cert(der).encode()
