"""Holds one parsed request head, the way the request path needs it."""

from __future__ import annotations

from queueproxy.codec.headers import K_ORIGINAL_HOST


class RequestHead:
    """One parsed request head.

    lines: headers to forward, flat groups of four (name, b": ", value, b"\\r\\n"), ready to be joined.
    special: value of each remembered header by its kind in codec.headers; lists for those that may repeat.
    body: 0 none, 1 sized by content_length, 2 chunked. early: bytes of a sized body came with it.
    minor: 0 or 1 of HTTP/1.x. keep_alive: the client wants the connection kept. upgrade: Upgrade value of an upgrade
    request, else None.
    """

    __slots__ = (
        "body", "content_length", "early", "keep_alive", "lines", "method", "minor", "special", "target", "upgrade",
    )  # fmt: skip

    method: bytes
    target: bytes
    minor: int
    keep_alive: bool

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.special: dict[int, bytes] = {}
        self.body = 0
        self.content_length = 0
        self.early = False
        self.upgrade: bytes | None = None

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.target!r} HTTP/1.{self.minor} body={self.body}>"

    def keep_original_host(self) -> None:
        """Requests marked by K-Kubelet-Probe: K-Original-Host is neither restored nor removed (contract 3.6)."""
        if K_ORIGINAL_HOST in self.special:
            self.lines += (b"K-Original-Host", b": ", self.special.pop(K_ORIGINAL_HOST), b"\r\n")
