"""A web app that ticks every 20 ms on stdout and says when requests reach it: whether it slept shows in its output.

Paths: `/` answers at once; `/slow` after half a second; `/exit` ends the process with status 3; `/crash` kills it
while the request is open. QP_TEST: "deaf" never listens, "stubborn" ignores SIGTERM, "family" leaves a child behind.
"""

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROLE = os.environ.get("QP_TEST", "")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# Blocked and waited for, where a handler would not learn who sent it.
ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def sender(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return f"{pid} ({file.read().strip()})"
    except OSError:
        return f"{pid} (gone)"


def tick() -> None:
    while True:
        say(f"tick {time.monotonic():.6f}")
        told = signal.sigtimedwait(ENDING, 0.02)
        # CPython gives back an uninitialised answer when a freeze interrupts the wait past its end (seen on 3.11.7).
        if told is not None and told.si_signo in ENDING:
            name = signal.Signals(told.si_signo).name
            say(f"terminated {time.monotonic():.6f} by {name} from {sender(told.si_pid)}")
            os._exit(0)


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        say(f"request {time.monotonic():.6f} {self.path}")
        if self.path == "/slow":
            time.sleep(0.5)
        elif self.path == "/exit":
            os._exit(3)
        elif self.path == "/crash":
            signal.raise_signal(signal.SIGKILL)  # to this very thread: not one instruction more
        body = f"hello from {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    if ROLE == "stubborn":
        ENDING.discard(signal.SIGTERM)
    signal.signal(signal.SIGUSR1, lambda *_: say(f"usr1 {time.monotonic():.6f}"))
    if ROLE == "family" and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)
    if ROLE != "deaf":
        server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    # The main thread ticks: it is the one that runs signal handlers (SIGUSR1 here).
    tick()


if __name__ == "__main__":
    main()
