"""Holds a private network namespace: loopback up in both families, nothing else, gone afterwards.

Root only. Processes are started with `nsenter --net`, not `ip netns exec`: the latter mounts a fresh /sys and so hides
the cgroup trees. `inside()` moves the calling thread, so that a test can open its own sockets in there.
"""

import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

_CLONE_NEWNET = 0x40000000
_STOP_FOR = 5.0


class NetworkNamespace:
    """One namespace and the processes started in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        self._started: list[subprocess.Popen[Any]] = []

    def __repr__(self) -> str:
        return f"<NetworkNamespace {self.name} {len(self._started)} processes>"

    def command(self, args: Sequence[str]) -> list[str]:
        """The same command, to be run in here. nsenter execs it: the process id is the command's own."""
        return ["nsenter", f"--net={self.path}", "--", *args]

    def run(self, args: Sequence[str], *, timeout: float = 30.0, **options: Any) -> subprocess.CompletedProcess[Any]:
        return subprocess.run(self.command(args), timeout=timeout, **options)

    def popen(self, args: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Starts a process that will not outlive the namespace."""
        process = subprocess.Popen(self.command(args), **options)
        self._started.append(process)
        return process

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is in the namespace; sockets opened meanwhile stay there."""
        with ExitStack() as files:
            home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            files.callback(os.close, home)
            there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            files.callback(os.close, there)
            _setns(there)
            try:
                yield
            finally:
                _setns(home)

    def stop(self) -> None:
        """Ends what was started in here."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
        for process in self._started:
            try:
                process.wait(_STOP_FOR)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_STOP_FOR)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@contextmanager
def network_namespace() -> Iterator[NetworkNamespace]:
    """A fresh namespace; skips the test without root or without the tools."""
    if os.geteuid() != 0:
        pytest.skip("needs root (network namespaces)")
    for tool in ("ip", "nsenter"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs the command {tool}")
    namespace = NetworkNamespace(f"qp-{secrets.token_hex(4)}")
    _ip("netns", "add", namespace.name)
    try:
        # Some hosts switch IPv6 off for new namespaces.
        namespace.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6"], stderr=subprocess.DEVNULL)
        _ip("-n", namespace.name, "link", "set", "lo", "up")
        yield namespace
    finally:
        try:
            namespace.stop()
        finally:
            _ip("netns", "del", namespace.name)


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, timeout=30.0, capture_output=True)


def _setns(fd: int) -> None:
    if hasattr(os, "setns"):  # 3.12
        os.setns(fd, _CLONE_NEWNET)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
