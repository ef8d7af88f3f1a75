"""Opens the metrics page's TLS: its context from `METRICS_PROMETHEUS_TLS_*`, its door (contract 5.6, QP-241).

The door is the request port's, with its bounds on those who never finish a handshake. What it touches: certificate,
key and client CA, read once at start, as upstream does. What happens when that breaks, or when the variables contradict
each other: `TlsFailed`, which ends the process.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, Protocol

from queueproxy.env import quoted
from queueproxy.net.groups import NoSuchGroup
from queueproxy.net.keypair import KeyPair, TlsFailed
from queueproxy.net.tls import make_context
from queueproxy.net.tlsdoor import FALLBACK, TlsDoor, Words
from queueproxy.net.tlsterms import PREFIX, BadTerms, Settings, decode

OURS: Final = "METRICS_PROMETHEUS_TLS_"
_VERIFY: Final = {
    "": ssl.CERT_NONE, "none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "require": ssl.CERT_REQUIRED,
}  # fmt: skip


class Wanted(Settings, Protocol):
    """otlp.ScrapeTls"""

    @property
    def cert(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def client_auth(self) -> str: ...
    @property
    def client_ca_file(self) -> str: ...


def context(wanted: Wanted) -> ssl.SSLContext | None:
    """None when neither certificate nor key is named and nothing asks for them. Raises TlsFailed."""
    if bool(wanted.cert) != bool(wanted.key):
        raise _failed(f"{OURS}CERT and {OURS}KEY must be set together")
    verify = _VERIFY.get(wanted.client_auth)
    if verify is None:
        raise _failed(f"invalid {OURS}CLIENT_AUTH {quoted(wanted.client_auth)}: must be none, optional or require")
    if not wanted.cert:
        if verify is not ssl.CERT_NONE or wanted.client_ca_file:
            raise _failed(f"client authentication needs {OURS}CERT and {OURS}KEY")
        return None
    if (verify is not ssl.CERT_NONE) != bool(wanted.client_ca_file):
        raise _failed(f"{OURS}CLIENT_AUTH and {OURS}CLIENT_CA_FILE must be set together")
    try:
        made = make_context(KeyPair(wanted.cert, wanted.key), decode(wanted), [FALLBACK])
        if wanted.client_ca_file:
            made.load_verify_locations(wanted.client_ca_file)
    except BadTerms as error:
        raise _failed(str(error).replace(PREFIX, OURS)) from error
    except (NoSuchGroup, OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise _failed(str(error)) from error
    made.verify_mode = verify
    return made


def door(
    loop: asyncio.AbstractEventLoop, context: ssl.SSLContext, page: Callable[[], asyncio.Protocol], log: Words
) -> TlsDoor:
    """Its `doorstep` is the protocol factory to listen with."""
    return TlsDoor(loop, lambda: context, {FALLBACK: page}, log)


def _failed(reason: str) -> TlsFailed:
    return TlsFailed("Failed to setup meter provider", reason)
