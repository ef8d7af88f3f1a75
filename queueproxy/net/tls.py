"""Holds the TLS context of the present certificate and replaces it when the files change (contract 9, QP-323).

What it touches: the two files of a `KeyPair`, read at start and at each `look`. What happens when that breaks: at start
`TlsFailed`; later the old pair stays, the log says why once for each content of the files and again each minute, and
the next look tries anew. A context is never changed once it is in use: connections keep the one they began with.

Both files are read and compared with what is loaded, not their times: a Secret volume swaps a symlink, people copy over
files, and 8 KiB from a tmpfs cost 40 us. `ssl` loads from paths only, so what was read is compared again afterwards:
a swap in between cannot leave us with a certificate that we believe to be another.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from queueproxy.clock import monotonic
from queueproxy.net import groups
from queueproxy.net.keypair import Contents, KeyPair, TlsFailed, complaint
from queueproxy.net.tlsterms import PREFIX, BadTerms, Settings, Terms, decode

LOADED: Final = "Certificate and/or key have changed on disk and were reloaded."  # QP-310: e2e suites count it
REPEAT_AFTER: Final = 60.0  # seconds between equal complaints, upstream's
_SWAPS: Final = 3  # how often the files may change under one look before it gives up until the next
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# Go's words for what OpenSSL finds.
_OTHER_TYPE: Final = "tls: private key type does not match public key type"
_MISMATCHES: Final = {
    "KEY_VALUES_MISMATCH": "tls: private key does not match public key",
    "KEY_TYPE_MISMATCH": _OTHER_TYPE,
    "NO_CERTIFICATE_ASSIGNED": _OTHER_TYPE,  # none of that type
}
_NO_PEM: Final = "tls: failed to find any PEM data in {} input"


class Words(Protocol):
    """Where it is told."""

    def info(self, message: str, /, **fields: object) -> None: ...
    def warning(self, message: str, /, **fields: object) -> None: ...
    def error(self, message: str, /, **fields: object) -> None: ...


class BadPair(Exception):
    """The files hold no usable pair; the text is upstream's."""


def make_context(pair: KeyPair, terms: Terms, names: Sequence[str]) -> ssl.SSLContext:
    """A server's context; names: ALPN, in order of preference. Raises what `ssl` raises for bad files."""
    context = bare_context(terms, names)
    # Without an answer OpenSSL asks the terminal for the passphrase of an encrypted key.
    context.load_cert_chain(pair.certificate, pair.key, password=lambda: b"")
    return context


def bare_context(terms: Terms, names: Sequence[str]) -> ssl.SSLContext:
    """The same without a certificate. No client certificate is asked for (QP-327). Raises NoSuchGroup."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = _VERSIONS[terms.oldest]
    context.maximum_version = _VERSIONS[terms.newest]  # below the minimum no handshake succeeds, as upstream
    # A client cannot make us pay for a second handshake; the choice of suite is ours, as in Go.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if terms.suites:
        context.set_ciphers(":".join(terms.suites))
    if terms.curves:
        groups.allow(context, terms.curves)
    context.set_alpn_protocols(list(names))
    return context


class Certificates:
    """The present pair. context: for the next connection; replaced, never changed."""

    __slots__ = ("_complained", "_complained_at", "_log", "_make", "_pair", "_refused", "_seen", "context")

    def __init__(self, pair: KeyPair, make: Callable[[KeyPair], ssl.SSLContext], log: Words) -> None:
        """Loads the pair; raises BadPair."""
        self._pair = pair
        self._make = make
        self._log = log
        self._seen = Contents(b"", b"")
        self._refused: Contents | None = None  # what was found to be no pair: not parsed again and again
        self._complained = ""
        self._complained_at = 0.0
        self.context = self._loaded()

    def __repr__(self) -> str:
        return f"<Certificates {self._pair.certificate} {self._seen!r}>"

    def look(self) -> bool:
        """Reads the files; True when there is a new context."""
        try:
            found = self._read()
            if found in (self._seen, self._refused):
                if found == self._seen:
                    self._complained, self._refused = "", None  # what was wrong has been taken back
                elif self._complained:
                    self._complain(self._complained)
                return False
            self.context = self._loaded()
        except BadPair as bad:
            self._complain(str(bad))
            return False
        self._complained, self._refused = "", None
        return True

    def _complain(self, text: str) -> None:
        now = monotonic()
        if text != self._complained or now - self._complained_at >= REPEAT_AFTER:
            self._complained, self._complained_at = text, now
            self._log.error(text)

    def _read(self) -> Contents:
        try:
            return self._pair.read()
        except ValueError as error:
            raise BadPair(f"failed to load certificate or key: {error}") from None
        except OSError as error:
            path = self._pair.key if error.filename == self._pair.key else self._pair.certificate
            which = "key" if path == self._pair.key else "certificate"
            raise BadPair(f"failed to load {which} file in {path}: {complaint('open', path, error)}") from None

    def _loaded(self) -> ssl.SSLContext:
        for _ in range(_SWAPS):
            found = self._read()
            try:
                context = self._make(self._pair)
                trouble = ""
            except (ssl.SSLError, OSError, ValueError) as error:
                trouble = _reason(found, error)
            if self._read() != found:
                continue
            if trouble:
                self._refused = found
                raise BadPair(f"failed to parse certificate: {trouble}")
            self._seen = found
            self._log.info(LOADED)
            return context
        raise BadPair("failed to load certificate and key: they keep changing")


def _reason(found: Contents, error: Exception) -> str:
    """What is wrong with the pair, in Go's words where it has some."""
    for name, pem in (("certificate", found.certificate), ("key", found.key)):
        if b"-----BEGIN " not in pem:
            return _NO_PEM.format(name)
    if b"-----BEGIN CERTIFICATE-----" not in found.certificate:
        return f'tls: failed to find "CERTIFICATE" PEM block in certificate input: {_plain(error)}'
    if isinstance(error, ssl.SSLError) and error.reason in _MISMATCHES:
        return _MISMATCHES[error.reason]
    return f"tls: failed to parse certificate or private key: {_plain(error)}"


def _plain(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error)


def certificates(pair: KeyPair, settings: Settings, names: Sequence[str], log: Words) -> Certificates:
    """Loads the pair as the settings want it; raises TlsFailed with upstream's words (contract 1.4, QP-324)."""
    try:
        terms = decode(settings)
        usable = groups.allow(bare_context(terms._replace(curves=()), names), terms.curves) if terms.curves else ()
    except (BadTerms, groups.NoSuchGroup) as error:
        raise TlsFailed("Failed to read TLS configuration from environment", str(error)) from error
    except ssl.SSLError as error:
        raise TlsFailed("Failed to read TLS configuration from environment", _plain(error)) from error
    if usable != terms.curves:
        log.warning(f"of the curves in {PREFIX}CURVE_PREFERENCES {ssl.OPENSSL_VERSION} offers {', '.join(usable)} only")
    try:
        return Certificates(pair, lambda pair: make_context(pair, terms, names), log)
    except BadPair as error:
        raise TlsFailed("failed to create certWatcher", str(error)) from error
