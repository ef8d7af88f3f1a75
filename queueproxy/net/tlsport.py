"""Serves the TLS request port when a certificate is mounted, and looks after the certificate (contract 9, QP-047).

What it touches: the certificate's directory, one listening socket, one timer. What happens when that breaks: at start
`TlsFailed` or `ListenFailed`, which end the process; later nothing does. Without a certificate none of the TLS code is
loaded: a sidecar on a fortieth of a CPU has better things to do while it starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from queueproxy.net.keypair import KeyPair, TlsFailed
from queueproxy.net.listen import ListenFailed, listen

if TYPE_CHECKING:
    from queueproxy.net.tls import Certificates
    from queueproxy.net.tlsdoor import TlsDoor
    from queueproxy.net.tlsterms import Settings

__all__ = ["TlsFailed", "TlsPort"]

LOOK_EVERY: Final = 10.0  # seconds between looks at the files; the contract asks for 60


class Words(Protocol):
    """Where it is told."""

    def info(self, message: str, /, **fields: object) -> None: ...
    def warning(self, message: str, /, **fields: object) -> None: ...
    def error(self, message: str, /, **fields: object) -> None: ...


class TlsPort:
    """Does nothing unless both files are in `directory`. codecs: protocol factories by ALPN name, best first."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        directory: str,
        settings: Settings,
        codecs: Mapping[str, Callable[[], asyncio.Protocol]],
        log: Words,
    ) -> None:
        self._loop = loop
        self._directory = directory
        self._settings = settings
        self._codecs = codecs
        self._log = log
        self._certificates: Certificates | None = None
        self._door: TlsDoor | None = None
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<TlsPort {self._certificates!r} {self._door!r}>"

    async def open(self, port: int) -> None:
        """Raises TlsFailed or ListenFailed. A certificate that appears later is not picked up, as upstream."""
        pair = KeyPair.mounted(self._directory)
        if pair is None:
            return
        from queueproxy.net.tls import certificates
        from queueproxy.net.tlsdoor import TlsDoor

        self._log.info(
            "Starting to watch the following directories for changes", certDir=self._directory, keyDir=self._directory
        )
        loaded = self._certificates = certificates(pair, self._settings, list(self._codecs), self._log)
        door = self._door = TlsDoor(self._loop, lambda: loaded.context, self._codecs, self._log)
        try:
            sock = listen(port)
        except ListenFailed as error:
            raise ListenFailed(f"main server failed to serve: {error}") from error
        self._server = await self._loop.create_server(door.doorstep, sock=sock)
        self._timer = self._loop.call_later(LOOK_EVERY, self._look)
        self._log.info(f"Starting tls server main :{port}")

    def _look(self) -> None:
        assert self._certificates is not None
        self._timer = self._loop.call_later(LOOK_EVERY, self._look)
        self._certificates.look()

    def close(self) -> None:
        """No further connections; those that are HTTP's already live on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._server is not None:
            self._log.info("Shutting down server: main tls")
            self._server.close()
            self._server = None
        if self._door is not None:
            self._door.close()
