"""Decodes an ssl object into what `.Request.TLS` shows: Go's numbers for versions and ciphers."""

from __future__ import annotations

from typing import Any, Final

from queueproxy.requestlog.values import Struct, Uint16

_VERSIONS: Final = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


class Tls(Struct):
    """tls.ConnectionState, as far as it is known here; certificates of clients are never asked for (QP-327)."""

    go_type = "tls.ConnectionState"
    __slots__ = ("cipher", "protocol", "resumed", "server_name", "version")

    def __init__(self, version: int, cipher: int, protocol: bytes, server_name: bytes, resumed: bool = False) -> None:
        self.version = version
        self.cipher = cipher
        self.protocol = protocol
        self.server_name = server_name
        self.resumed = resumed


Tls.fields = {
    "Version": lambda tls: Uint16(tls.version),
    "HandshakeComplete": lambda tls: True,
    "DidResume": lambda tls: tls.resumed,
    "CipherSuite": lambda tls: Uint16(tls.cipher),
    "NegotiatedProtocol": lambda tls: tls.protocol,
    "NegotiatedProtocolIsMutual": lambda tls: True,
    "ServerName": lambda tls: tls.server_name,
}


def tls_state(ssl: Any) -> Tls | None:
    """ssl: an `ssl.SSLObject` after its handshake, None for cleartext."""
    if ssl is None:
        return None
    chosen = ssl.cipher()
    name = chosen[0] if chosen else ""
    # OpenSSL's numbers carry a prefix; the lower half is the registered one.
    numbers = {cipher["name"]: cipher["id"] & 0xFFFF for cipher in ssl.context.get_ciphers()}
    return Tls(
        _VERSIONS.get(ssl.version() or "", 0),
        numbers.get(name, 0),
        (ssl.selected_alpn_protocol() or "").encode(),
        (getattr(ssl, "server_name", None) or "").encode(),
        bool(ssl.session_reused),
    )
