"""Talks in its sleep: prints a tick every 500 ms for ever, whether anybody asks for anything or not.

Each request answers one line at once, works for two seconds and answers a second line; `/quick` answers one line.
Under `queueproxy run` the ticks stop between requests and go on during one. Standard library only. Listens on
127.0.0.1:$PORT (8080 when PORT is not set).
"""

import datetime
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TICK_EVERY = 0.5
WORK_FOR = 2.0


def stamp() -> str:
    return datetime.datetime.now().strftime("%H:%M:%S.%f")[:-3]


def tick_for_ever() -> None:
    count = 0
    while True:
        count += 1
        print(f"{stamp()} tick {count}", flush=True)
        time.sleep(TICK_EVERY)


class Talker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms for the first one's ACK

    def do_GET(self) -> None:
        if self.path == "/quick":
            self.answer_at_once()
            return
        print(f"{stamp()} request {self.path}", flush=True)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.say(f"{stamp()} I am awake and start to work\n")
        time.sleep(WORK_FOR)
        self.say(f"{stamp()} done, back to sleep\n")
        self.wfile.write(b"0\r\n\r\n")

    def answer_at_once(self) -> None:
        body = f"{stamp()} awake\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def say(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Be quiet: the ticks are the output."""


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Talker)
    server.daemon_threads = True
    threading.Thread(target=tick_for_ever, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
