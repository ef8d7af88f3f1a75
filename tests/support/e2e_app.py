"""A user container's web app that shows whether it slept: it says `tick <monotonic>` every 20 ms, for ever.

Listens on all addresses at $PORT, as apps on Knative must. Paths: `/` answers at once and echoes `X-Id`; `/slow`
answers after $SLOW seconds (0.5); `/healthz` answers `ok`. SIGTERM: says `sigterm <monotonic>`, and ends once open
requests are answered and $LINGER seconds have passed. Standard library only.
"""

import asyncio
import os
import signal
import sys
import time

PORT = int(os.environ.get("PORT", "8080"))
SLOW_FOR = float(os.environ.get("SLOW", "0.5"))
LINGER_FOR = float(os.environ.get("LINGER", "0"))
TICK_EVERY = float(os.environ.get("TICK", "0.02"))


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


class App:
    def __init__(self) -> None:
        self.open_requests = 0
        self.ending = asyncio.Event()
        self.told = False

    def tick(self) -> None:
        say(f"tick {time.monotonic():.6f}")
        asyncio.get_running_loop().call_later(TICK_EVERY, self.tick)

    def terminate(self) -> None:
        say(f"sigterm {time.monotonic():.6f}")
        asyncio.get_running_loop().call_later(LINGER_FOR, self.may_end)

    def may_end(self) -> None:
        self.told = True
        self.perhaps_end()

    def perhaps_end(self) -> None:
        if self.told and not self.open_requests:
            self.ending.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.open_requests += 1
                try:
                    await self.answer(head, reader, writer)
                finally:
                    self.open_requests -= 1
                    self.perhaps_end()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        await reader.readexactly(int(headers.get("content-length", "0")))
        path = first.split(" ")[1]
        identity = headers.get("x-id", "-")
        say(f"request {time.monotonic():.6f} {path} {identity} {headers.get('user-agent', '-')}")
        if path == "/slow":
            await asyncio.sleep(SLOW_FOR)
        body = f"{os.environ.get('NAME', 'app')} {identity}\n".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()


async def main() -> None:
    app = App()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.terminate)
    server = await asyncio.start_server(app.serve, None, PORT, backlog=128)
    say(f"listening {time.monotonic():.6f}")
    app.tick()
    await app.ending.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)
