"""Decides what `QUEUE_PROXY_TLS_*` mean: versions, cipher suites and curves in OpenSSL's words (QP-321, QP-328).

The values are written for Go's crypto/tls, so names, defaults and error lines are Go's. Go accepts the suites it holds
for secure and no others; the suites of TLS 1.3 may be named, but are always all on. An empty value, or one of nothing
but commas, is the default. The order of a list means nothing, as in Go since 1.24: the library knows better which one
is quickest.

Knows no ssl: what the library at hand can do is for net/tls.py to find out.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final, NamedTuple, Protocol

from queueproxy.env import quoted

PREFIX: Final = "QUEUE_PROXY_TLS_"
VERSIONS: Final = ("1.2", "1.3")

# crypto/tls.CipherSuites() below TLS 1.3. OpenSSL's order of preference is ours: AEAD first.
SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
}
SUITES_13: Final = frozenset(("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"))
CURVES: Final = {
    "CurveP256": "P-256", "CurveP384": "P-384", "CurveP521": "P-521",
    "P-256": "P-256", "P-384": "P-384", "P-521": "P-521",
    "X25519": "X25519", "X25519MLKEM768": "X25519MLKEM768",
}  # fmt: skip


class Settings(Protocol):
    """The four values as received (config.TlsSettings)."""

    @property
    def min_version(self) -> str: ...
    @property
    def max_version(self) -> str: ...
    @property
    def cipher_suites(self) -> str: ...
    @property
    def curve_preferences(self) -> str: ...


class Terms(NamedTuple):
    """What a client has to agree to. Suites of TLS 1.2 and curves in OpenSSL's words; no curves: the library's own."""

    oldest: str = "1.3"
    newest: str = "1.3"
    suites: tuple[str, ...] = tuple(SUITES.values())
    curves: tuple[str, ...] = ()


class BadTerms(Exception):
    """A value nobody can mean; the text is Go's."""


def decode(settings: Settings) -> Terms:
    """Raises BadTerms for the first value that is wrong, in upstream's order."""
    oldest = _version("MIN_VERSION", settings.min_version) or VERSIONS[-1]
    newest = _version("MAX_VERSION", settings.max_version) or VERSIONS[-1]
    named = _listed("CIPHER_SUITES", settings.cipher_suites, "cipher suite", SUITES.keys() | SUITES_13)
    curves = _listed("CURVE_PREFERENCES", settings.curve_preferences, "curve", CURVES.keys())
    suites = tuple(SUITES[name] for name in named if name in SUITES) if named else Terms().suites
    if not suites:
        oldest = VERSIONS[-1]  # nothing but suites of TLS 1.3 was named, so TLS 1.2 has none left to agree on
    return Terms(oldest, newest, suites, tuple(dict.fromkeys(CURVES[name] for name in curves)))


def _version(suffix: str, value: str) -> str:
    if value and value not in VERSIONS:
        choice = " or ".join(quoted(version) for version in VERSIONS)
        raise BadTerms(
            f"invalid {PREFIX}{suffix} {quoted(value)}: unsupported TLS version {quoted(value)}: must be {choice}"
        )
    return value


def _listed(suffix: str, value: str, what: str, known: Container[str]) -> list[str]:
    names = [name for item in value.split(",") if (name := item.strip())]
    for name in names:
        if name not in known:
            raise BadTerms(f"invalid {PREFIX}{suffix}: unknown {what} {quoted(name)}")
    return names
