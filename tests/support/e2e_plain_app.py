"""A user container's web app that adds as little as an app can: one thread, one poll, no framework, one answer.

What a wake costs is measured with it. `e2e_app.py` runs on asyncio, where accepting a connection takes 0.4 ms from cold
caches, and a fresh connection is a part of each wake: that time would be the app's. Same port, same first words.
"""

import os
import select
import signal
import socket
import sys
import time

PORT = int(os.environ.get("PORT", "8080"))
BODY = f"{os.environ.get('NAME', 'app')} -\n".encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


def say(line: str) -> None:
    os.write(1, f"{line} {time.monotonic():.6f}\n".encode())


def end(number: int, frame: object) -> None:
    say("sigterm")
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    server = socket.create_server(("", PORT), backlog=128)
    server.setblocking(False)
    poll = select.poll()
    poll.register(server, select.POLLIN)
    connections: dict[int, socket.socket] = {}
    say("listening")
    while True:
        for fd, _ in poll.poll():
            if fd == server.fileno():
                try:
                    connection, _ = server.accept()
                except BlockingIOError:
                    continue
                connections[connection.fileno()] = connection
                poll.register(connection, select.POLLIN)
                fd = connection.fileno()
                connection.setblocking(False)
            serve(fd, connections, poll)


def serve(fd: int, connections: dict[int, socket.socket], poll: "select.poll") -> None:
    """Heads only, each in one piece: that is how the sidecar sends requests without a body."""
    try:
        head = connections[fd].recv(65536)
    except BlockingIOError:
        return
    except OSError:
        head = b""
    if head:
        connections[fd].send(ANSWER)
        return
    poll.unregister(fd)
    connections.pop(fd).close()


if __name__ == "__main__":
    sys.exit(main())
