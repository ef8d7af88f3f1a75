"""Decodes an ssl object into what `.Request.TLS` shows: Go's numbers for versions and ciphers."""

from __future__ import annotations

from typing import Any, Final

from queueproxy.requestlog.inputs import Tls

_VERSIONS: Final = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


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
