"""Decides what each header means to the proxy: drop, remember, forward. Bytes in, bytes out.

Names are looked up as received in one dict that answers both "what kind?" and "seen in this spelling before?": the
common spellings are in it from the start, others are lower-cased once and remembered, up to a bound so that hostile
names cannot grow it. llhttp has already refused names that are not tokens (RFC 9110 5.6.2).
"""

from __future__ import annotations

from typing import Final

# Kinds of a request header. FORWARD is 0 so that the common case is one comparison.
FORWARD: Final = 0
# Remembered and forwarded as received:
USER_AGENT: Final = 1
K_NETWORK_PROBE: Final = 2
K_NETWORK_HASH: Final = 3
K_KUBELET_PROBE: Final = 4
K_PROXY_REQUEST: Final = 5
FORWARDED: Final = 6
X_FORWARDED_HOST: Final = 7
X_FORWARDED_PROTO: Final = 8
TAG: Final = 9
DEFAULT_ROUTE: Final = 10
EXPECT: Final = 11
HOST: Final = 12
IDEMPOTENCY_KEY: Final = 13
# Remembered only once `remember_for_log` was called; forwarded in any case.
REFERER: Final = 14
TRACEPARENT: Final = 15
X_B3_TRACEID: Final = 16
LAST_FORWARDED: Final = 16
# Remembered, and written anew or not at all:
CONTENT_LENGTH: Final = 20
TRANSFER_ENCODING: Final = 21
CONNECTION: Final = 22
TE: Final = 23
TRAILER: Final = 24
UPGRADE: Final = 25
X_FORWARDED_FOR: Final = 26
K_ORIGINAL_HOST: Final = 27
DATE: Final = 28
DROP: Final = 29

_REQUEST: Final = {
    b"user-agent": USER_AGENT,
    b"k-network-probe": K_NETWORK_PROBE,
    b"k-network-hash": K_NETWORK_HASH,
    b"k-kubelet-probe": K_KUBELET_PROBE,
    b"k-proxy-request": K_PROXY_REQUEST,
    b"forwarded": FORWARDED,
    b"x-forwarded-host": X_FORWARDED_HOST,
    b"x-forwarded-proto": X_FORWARDED_PROTO,
    b"knative-serving-tag": TAG,
    b"knative-serving-default-route": DEFAULT_ROUTE,
    b"expect": EXPECT,
    b"host": HOST,
    b"idempotency-key": IDEMPOTENCY_KEY,
    b"x-idempotency-key": IDEMPOTENCY_KEY,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"te": TE,
    b"trailer": TRAILER,
    b"upgrade": UPGRADE,
    b"x-forwarded-for": X_FORWARDED_FOR,
    b"k-original-host": K_ORIGINAL_HOST,
    # Hop-by-hop (QP-192) and Knative's routing headers (QP-193) end here.
    b"proxy-connection": DROP,
    b"keep-alive": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authorization": DROP,
    b"knative-serving-revision": DROP,
    b"knative-serving-namespace": DROP,
}

_RESPONSE: Final = {
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"trailer": TRAILER,
    b"upgrade": UPGRADE,
    b"date": DATE,
    b"te": DROP,
    b"proxy-connection": DROP,
    b"keep-alive": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authorization": DROP,
}

# Framing and routing fields must not come in through a trailer section (RFC 9110 6.5.1).
FORBIDDEN_IN_TRAILERS: Final = frozenset(
    (
        *_REQUEST.keys(),
        b"content-encoding", b"content-type", b"content-range", b"authorization", b"set-cookie", b"cookie",
        b"cache-control", b"max-forwards", b"range",
    )
)  # fmt: skip

# Spellings remembered per direction. 1,024 covers every application met; beyond it a name is lower-cased each time.
MEMO_LIMIT: Final = 1024


REQUEST_KINDS: Final[dict[bytes, int]] = {n: k for name, k in _REQUEST.items() for n in (name, name.title())}
RESPONSE_KINDS: Final[dict[bytes, int]] = {n: k for name, k in _RESPONSE.items() for n in (name, name.title())}


def remember_for_log() -> None:
    """From now on the headers that a request log asks for are kept at hand. Nobody pays for that before."""
    for name, kind in ((b"referer", REFERER), (b"traceparent", TRACEPARENT), (b"x-b3-traceid", X_B3_TRACEID)):
        _REQUEST[name] = kind
        for spelling in {name, name.title(), *(met for met in REQUEST_KINDS if met.lower() == name)}:
            REQUEST_KINDS[spelling] = kind


def learn(kinds: dict[bytes, int], name: bytes) -> int:
    """Kind of a spelling not met before; remembers it while there is room. kinds: one of the two dicts above.

    They are plain dicts because a subclass with __missing__ costs 40 ns more per header.
    """
    table = _REQUEST if kinds is REQUEST_KINDS else _RESPONSE
    kind = table.get(name.lower(), FORWARD)
    if len(kinds) < MEMO_LIMIT:
        kinds[name] = kind
    return kind


def tokens(values: list[bytes]) -> list[bytes]:
    """Comma-separated tokens of all field lines, lower case, blanks removed (RFC 9110 5.6.1)."""
    return [t for value in values for t in (part.strip(b" \t").lower() for part in value.split(b",")) if t]


def forwarded(xff: list[bytes], host: bytes | None, proto: bytes | None) -> bytes | None:
    """The `Forwarded` value made from X-Forwarded-*, None when there is nothing to make it of (contract 3.9, QP-196).

    xff: X-Forwarded-For field lines; only the first one counts, as upstream.
    """
    elements: list[bytes] = []
    if xff and xff[0]:
        parts = xff[0].split(b",")
        if len(parts) > 1 and not parts[-1].strip():
            parts.pop()  # a trailing empty element is dropped
        for part in parts:
            node = part.strip()
            elements.append(b'for="[%b]"' % node if b":" in node else b"for=%b" % node)
    pairs = elements[:1]
    if host:
        pairs.append(b"host=%b" % host)
    if proto:
        pairs.append(b"proto=%b" % proto)
    if not pairs:
        return None
    return b", ".join([b";".join(pairs), *elements[1:]])


def without(lines: list[bytes], nominated: list[bytes]) -> list[bytes]:
    """Header lines (flat groups name, ": ", value, CRLF) without those a Connection header named (QP-192)."""
    kept: list[bytes] = []
    for i in range(0, len(lines), 4):
        if lines[i].lower() not in nominated:
            kept += lines[i : i + 4]
    return kept
