"""Speaks HTTP/1.1 over a bare socket: exact bytes out, exact bytes in, no library that tidies anything up.

A `Wire` is one connection, seen from either end: the client of a proxy or the origin behind it. Every wait ends after
`PATIENCE` with the bytes that did arrive in the message. `Message` is what came, with its raw head kept.
"""

from __future__ import annotations

import select
import socket
import struct

PATIENCE = 15.0  # seconds; far above anything that happens on a loaded machine
_BUFFER = 1 << 16


class Message:
    """A request or a response. `head` is raw, up to and including the empty line; names in `fields` are as sent."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.body = b""
        self.trailers: list[tuple[bytes, bytes]] = []
        lines = head[:-4].split(b"\r\n")
        self.start = lines[0]
        self.fields: list[tuple[bytes, bytes]] = []
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            self.fields.append((name, value.strip()))

    def __repr__(self) -> str:
        return f"<Message {self.head!r} {len(self.body)} bytes of body>"

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    def all(self, name: str) -> list[bytes]:
        wanted = name.lower().encode()
        return [value for key, value in self.fields if key.lower() == wanted]

    def get(self, name: str) -> bytes | None:
        """The only value of that field, None when there is none."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times: {self.head!r}"
        return values[0] if values else None


class Wire:
    """One connection. `held` is what was read and not yet asked for."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.held = b""

    def __repr__(self) -> str:
        return f"<Wire {self.sock.fileno()} held={self.held[:80]!r}>"

    def fileno(self) -> int:
        return self.sock.fileno()

    # -- out

    def send(self, *pieces: bytes) -> None:
        self.sock.sendall(b"".join(pieces))

    def ask(
        self, method: str = "GET", target: str = "/", *lines: str, body: bytes = b"", host: str = "a.example"
    ) -> None:
        """A well-formed request; a Content-Length when there is a body."""
        sized = (f"Content-Length: {len(body)}",) if body else ()
        head = "\r\n".join((f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, *sized, "", ""))
        self.send(head.encode("latin-1"), body)

    def answer(self, status: int = 200, *lines: str, body: bytes = b"ok") -> None:
        """A sized response."""
        head = "\r\n".join((f"HTTP/1.1 {status} Whatever", *lines, f"Content-Length: {len(body)}", "", ""))
        self.send(head.encode("latin-1"), body)

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Ends the connection so that the peer sees ECONNRESET."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # -- in

    def more(self) -> bool:
        """Reads once; False at the end of the stream. A reset raises ConnectionResetError."""
        try:
            data = self.sock.recv(_BUFFER)
        except TimeoutError:
            raise AssertionError(f"nothing came within {PATIENCE} s; held {self.held!r}") from None
        self.held += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        """Everything up to and including `mark`."""
        while mark not in self.held:
            assert self.more(), f"the stream ended before {mark!r}; held {self.held!r}"
        at = self.held.index(mark) + len(mark)
        found, self.held = self.held[:at], self.held[at:]
        return found

    def exactly(self, size: int) -> bytes:
        pieces, have = [self.held], len(self.held)
        while have < size:
            self.held = b""
            assert self.more(), f"the stream ended {size - have} bytes short"
            pieces.append(self.held)
            have += len(self.held)
        data = b"".join(pieces)
        data, self.held = data[:size], data[size:]
        return data

    def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        while self.more():
            pass
        data, self.held = self.held, b""
        return data

    def drained(self) -> str:
        """Waits for the end, whatever it looks like: "end" or "reset"."""
        try:
            self.rest()
        except ConnectionResetError:
            return "reset"
        return "end"

    def gone(self) -> bool:
        """Waits for the peer to go away in any form; what it still said is dropped."""
        return self.drained() in ("end", "reset")

    def quiet(self) -> bool:
        """Nothing is here and the stream is open, at this instant."""
        return not self.held and not select.select([self.sock], [], [], 0)[0]

    # -- messages

    def head(self) -> Message:
        return Message(self.until(b"\r\n\r\n"))

    def chunk(self) -> bytes:
        """One chunk; b"" for the last, whose trailer section is left unread."""
        size = int(self.until(b"\r\n")[:-2], 16)
        if size == 0:
            return b""
        data = self.exactly(size)
        assert self.exactly(2) == b"\r\n"
        return data

    def trailers(self) -> list[tuple[bytes, bytes]]:
        """The trailer section, after the last chunk."""
        found = []
        while line := self.until(b"\r\n")[:-2]:
            name, _, value = line.partition(b":")
            found.append((name, value.strip()))
        return found

    def body_of(self, message: Message) -> Message:
        """Reads the body that the head announces; without framing there is none for requests (see `response`)."""
        if message.get("transfer-encoding") == b"chunked":
            pieces = []
            while piece := self.chunk():
                pieces.append(piece)
            message.body = b"".join(pieces)
            message.trailers = self.trailers()
        elif length := message.get("content-length"):
            message.body = self.exactly(int(length))
        return message

    def request(self) -> Message:
        return self.body_of(self.head())

    def response(self, *, to: str = "GET") -> Message:
        """A final response, whole; unframed ones last until the end of the stream."""
        message = self.head()
        if to == "HEAD" or message.status in (204, 304) or message.status < 200:
            return message
        if not message.all("content-length") and not message.all("transfer-encoding"):
            message.body = self.rest()
            return message
        return self.body_of(message)
