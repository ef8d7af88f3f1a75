"""Probes user ports as the kubelet does, from a process of its own on the node, and prints each result.

    python -m tests.support.e2e_kubelet [--period 1] [--timeout 1] http:HOST:PORT/PATH tcp:HOST:PORT grpc:HOST:PORT

One line of JSON per probe: its target, when it began, whether it succeeded, how long it took, and why not. As in the
kubelet (pkg/probe): a fresh connection each time, the timeout is for everything, HTTP wants 200 to 399, TCP only
connects, gRPC asks the standard health service. A probe that fails does not delay the next. Runs until it is killed.
"""

import argparse
import http.client
import json
import socket
import struct
import threading
from time import monotonic
from typing import Any

NO_LINGER = struct.pack("ii", 1, 0)  # the kubelet resets, so that no probe leaves a TIME_WAIT behind


def probe_http(address: str, port: int, path: str, timeout: float) -> str:
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"User-Agent": "kube-probe/1.36", "Connection": "close"})
        status = connection.getresponse().status
        return "" if 200 <= status < 400 else f"status {status}"
    finally:
        connection.close()


def probe_tcp(address: str, port: int, path: str, timeout: float) -> str:
    with socket.create_connection((address, port), timeout=timeout) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    return ""


def probe_grpc(address: str, port: int, path: str, timeout: float) -> str:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    host = f"[{address}]" if ":" in address else address
    options = [("grpc.use_local_subchannel_pool", 1)]  # else gRPC would keep the connection for the next probe
    with grpc.insecure_channel(f"{host}:{port}", options=options) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "" if answer.status == health_pb2.HealthCheckResponse.SERVING else f"health {answer.status}"


PROBES = {"http": probe_http, "tcp": probe_tcp, "grpc": probe_grpc}


def probe(target: str, timeout: float, out: threading.Lock) -> None:
    kind, _, rest = target.partition(":")
    where, slash, path = rest.partition("/")
    address, _, port = where.rpartition(":")
    began = monotonic()
    try:
        problem = PROBES[kind](address.strip("[]"), int(port), slash + path, timeout)
    except OSError as error:
        problem = f"{type(error).__name__}: {error}"
    took = monotonic() - began
    if took > timeout and not problem:
        problem = "late"
    result: dict[str, Any] = {"target": target, "began": began, "took": took, "problem": problem}
    with out:
        print(json.dumps(result), flush=True)


def keep_probing(target: str, period: float, timeout: float, out: threading.Lock) -> None:
    due, never = monotonic(), threading.Event()
    while not never.wait(max(0.0, due - monotonic())):
        threading.Thread(target=probe, args=(target, timeout, out), daemon=True).start()
        due += period


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--period", type=float, default=1.0)
    parser.add_argument("--timeout", type=float, default=1.0)
    parser.add_argument("targets", nargs="+")
    given = parser.parse_args()
    out = threading.Lock()
    for number, target in enumerate(given.targets):
        # Not all at the same moment; the kubelet's workers start at random offsets too.
        threading.Timer(
            given.period * number / len(given.targets),
            keep_probing,
            (target, given.period, given.timeout, out),
        ).start()


if __name__ == "__main__":
    main()
