"""A gRPC user container that shows whether it slept: `tick <monotonic>` every 20 ms; the standard health service."""

import os
import signal
import sys
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

PORT = int(os.environ.get("PORT", "8080"))


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if not server.add_insecure_port(f"[::]:{PORT}"):
        sys.exit("cannot listen")
    server.start()
    say(f"listening {time.monotonic():.6f}")
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(time.monotonic()))
    while not told:
        say(f"tick {time.monotonic():.6f}")
        time.sleep(0.02)
    say(f"sigterm {told[0]:.6f}")
    os._exit(0)


if __name__ == "__main__":
    main()
