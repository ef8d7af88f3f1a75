"""Runs the node freezer: builds its parts, takes over what a former one left, serves, and leaves nothing asleep behind.

The only place where the parts meet. Start order: configuration, log, cgroups, journal, port 9696 bound, adoption, port
9696 open, pod watch, operators' port. Thaws and renewals work from the first moment the port is open, because they need
the journal and not the API server; everything heavy (aiohttp, the Kubernetes client) is imported after that, in a
thread. `SIGTERM` drains: freezes are refused, everybody is thawed at the storm's pace but within bounds (FZ-093), and
the process ends. A second signal ends it at once; what is asleep then is adopted by the next freezer, or thawed by its
lease there, or by `queueproxy thaw-all`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import secrets
import signal
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from queueproxy import __version__
from queueproxy.clock import monotonic
from queueproxy.freeze.node.book import Book
from queueproxy.freeze.node.cluster import Cluster
from queueproxy.freeze.node.config import Address, ConfigError, NodeConfig, load
from queueproxy.freeze.node.entrance import Entrance
from queueproxy.freeze.node.events import Events
from queueproxy.freeze.node.fitness import capabilities
from queueproxy.freeze.node.journal import Journal, JournalError
from queueproxy.freeze.node.keeper import Keeper
from queueproxy.freeze.node.ledger import Ledger, LedgerSettings
from queueproxy.freeze.node.limits import Limits
from queueproxy.freeze.node.locate import Tree
from queueproxy.freeze.node.overview import pod_records
from queueproxy.freeze.node.patrol import Patrol
from queueproxy.freeze.node.pods import Pods
from queueproxy.freeze.node.port import Port
from queueproxy.freeze.node.review import Reviewer
from queueproxy.freeze.node.server import SidecarConnection
from queueproxy.freeze.node.sessions import Sessions
from queueproxy.log import LineWriter, Log, settings
from queueproxy.net.descriptors import raise_limit

if TYPE_CHECKING:
    from queueproxy.freeze.node.operators import Operators

__all__ = ["Freezer", "freeze_node"]

EX_USAGE: Final = 64  # bad configuration, as everywhere in this package
ENDING: Final = (signal.SIGTERM, signal.SIGINT)
BACKLOG: Final = 1024
COLLECT_AFTER: Final = 20_000  # objects; a call leaves no cycles behind
_LEASE: Final = 30.0  # FZ-090
_LINGER: Final = 1.0  # seconds after a drain in which sidecars may ask how things stand; they do so at once
_CHORES_EVERY: Final = 1.0  # seconds: adopted pods that are no more, certificates that were renewed


class Freezer:
    """One node."""

    def __init__(self, config: NodeConfig, loop: asyncio.AbstractEventLoop, log: Log) -> None:
        """OSError or JournalError when the node's cgroups or the journal cannot be opened."""
        self._config = config
        self._loop = loop
        self._log = log
        self._began_at = monotonic()
        self._exit: asyncio.Future[int] = loop.create_future()
        self._servers: list[asyncio.AbstractServer] = []
        self._operators: Operators | None = None
        self._exposition: Callable[[], bytes] | None = None
        self._chores: asyncio.TimerHandle | None = None
        self._patrol: Patrol | None = None
        self._opening: asyncio.Task[None] | None = None
        self._tls, self._tls_seen = _tls(config), _stamps(config)
        rules, identity = config.rules, config.identity
        self.tree = Tree.open(under=config.cgroups, roots=config.kubepods, proc=config.proc)
        try:
            self.journal = Journal(config.journal)
        except BaseException:
            self.tree.close()
            raise
        self.events = Events(secrets.token_hex(4))
        self.book = Book(self.events, log)
        cap = config.leases.longest_s
        self.ledger = Ledger(LedgerSettings(lease_cap=cap, lease_default=min(_LEASE, cap)))
        self.sessions = Sessions(lambda: secrets.token_urlsafe(32))
        self.limits = Limits(config.rates)
        self.keeper = Keeper(
            loop, self.ledger, self.tree, self.journal, self.book, self.sessions, log, old_lease=config.leases.old_s
        )
        self.cluster = Cluster(config.kubeconfig)
        self.reviewer = Reviewer(
            self.cluster, identity.audience, rules.node, log, lambda claims: door.screen(claims),
            fresh_for=identity.cache_s,
        )  # fmt: skip
        self.inventory = Pods(self.cluster, rules, config.defaults, log, known=self.keeper.known, gone=self.keeper.gone)
        door = Entrance(
            self.reviewer, self.inventory, self.keeper.adopted, self.limits, log,
            audience=identity.audience, node=rules.node, check_peer=identity.check_peer,
        )  # fmt: skip
        self.port = Port(
            loop, door, self.keeper, self.sessions, log,
            most=config.listen.connections,
            per_source=config.listen.per_source if identity.check_peer else 0,  # else all may come from one address
            old_protocol=config.listen.old_protocol,
        )  # fmt: skip
        self.keeper.on_gone = self._gone

    def __repr__(self) -> str:
        return f"<Freezer {self._config.rules.node} {self.keeper!r} {self.port!r}>"

    # -- life

    async def run(self) -> int:
        """Until a signal has been dealt with; the exit code. OSError when a port is taken."""
        listen = self._config.listen
        server = await self._bind(listen.sidecars)
        self.keeper.adopt()
        for uid, record in self.keeper.adopted.items():
            self.sessions.restore(uid, record.proof, record.sidecar_id)
        await server.start_serving()
        for number in ENDING:
            self._loop.add_signal_handler(number, self._signalled)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        self._log.info(
            "serving sidecars", address=str(listen.sidecars), port=self.sidecar_port, version=__version__,
            node=self._config.rules.node, kubepods=list(self.tree.found()),
        )  # fmt: skip
        self._patrol = Patrol(self._loop, self.keeper, self._log)
        self.inventory.start()
        self._do_chores()
        self._opening = self._loop.create_task(self._open_operators())
        self._opening.add_done_callback(self._opened)
        return await self._exit

    async def close(self) -> None:
        """Ends what is left; after this nothing of ours is on the loop."""
        for handle in (self._patrol, self._chores):
            if isinstance(handle, Patrol):
                handle.close()
            elif handle is not None:
                handle.cancel()
        for server in self._servers:
            server.close()
        self.port.close()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._operators is not None:
            await self._operators.close()
        await self.inventory.close()
        await self.reviewer.close()
        await self.cluster.close()
        self.keeper.close()
        self.journal.close()
        self.tree.close()
        await asyncio.sleep(0)  # lets the last words leave

    @property
    def sidecar_port(self) -> int:
        return _port_of(self._servers[0])

    async def _bind(self, address: Address) -> asyncio.AbstractServer:
        factory = lambda: SidecarConnection(self.port)  # noqa: E731
        options: dict[str, Any] = {"ssl": self._tls, "backlog": BACKLOG, "start_serving": False}
        if address.path:
            server: asyncio.AbstractServer = await self._loop.create_unix_server(factory, address.path, **options)
            os.chmod(address.path, 0o666)  # noqa: S103 - sidecars are not root; who may speak, their token says
        else:
            server = await self._loop.create_server(factory, address.host, address.port, **options)
        self._servers.append(server)
        return server

    async def _open_operators(self) -> None:
        """aiohttp and prometheus_client take a quarter of a second to import; wakes go on meanwhile."""
        rooms = await asyncio.to_thread(importlib.import_module, "queueproxy.freeze.node.operators")
        pages = importlib.import_module("queueproxy.freeze.node.metrics")
        collector = pages.FreezerCollector(
            self.ledger, self.book, self.port, self.limits, self.reviewer, self.inventory
        )
        self._exposition = pages.exposition(collector)
        operators: Operators = rooms.Operators(self, self._config.listen.operators)
        await operators.start()
        self._operators = operators
        self._log.info("serving operators", address=str(self._config.listen.operators), port=operators.port)
        gc.collect()
        gc.freeze()

    def _opened(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        # Without this port there is no readiness and nobody to ask for a thaw: let the DaemonSet try again.
        self._log.emergency("the operators' port cannot be served", error=str(error))
        self._end(1)

    def _signalled(self) -> None:
        if self.ledger.is_draining:
            self._end(1)
            return
        self._log.info("draining", asleep=self.ledger.held)
        self.keeper.on_idle = self._emptied
        self._loop.call_later(self._config.drain_s, self._drained)
        self.keeper.drain()
        if not self.ledger.held:
            self._end(0)

    def _emptied(self) -> None:
        """Everything runs. Sidecars that were silent meanwhile still believe their apps asleep, and would hold requests
        until the next freezer comes: hung up on, they ask again and hear that theirs runs."""
        self.keeper.on_idle = None
        self.port.hang_up()
        self._loop.call_later(_LINGER, self._end, 0)

    def _drained(self) -> None:
        """The time is up."""
        if self.ledger.held:
            self._log.error("still asleep at the end of the drain", pods=self.ledger.held)
        self._end(1 if self.ledger.held else 0)

    def _end(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code)

    def _gone(self, uid: str) -> None:
        self.port.gone(uid)
        self.reviewer.gone(uid)
        self.limits.gone(uid)

    def _do_chores(self) -> None:
        self._chores = self._loop.call_later(_CHORES_EVERY, self._do_chores)
        if self.inventory.synced:  # deleted while no freezer was looking
            for uid in [uid for uid in self.keeper.adopted if self.inventory.get(uid) is None]:
                self.keeper.gone(uid)
        if self._tls is not None and (stamps := _stamps(self._config)) != self._tls_seen:
            self._tls_seen = stamps
            try:
                self._tls.load_cert_chain(self._config.listen.certificate, self._config.listen.key)
                self._log.info("certificate renewed")
            except (OSError, ssl.SSLError) as error:
                self._log.error("the new certificate cannot be used", error=str(error))

    # -- what operators see and do

    def pods(self) -> list[dict[str, object]]:
        connected = {caller.uid for caller in self.port.known}
        return pod_records(monotonic(), self.ledger.pods, self.book.pages, connected)

    def status(self) -> dict[str, object]:
        stale = self.inventory.stale_for(monotonic())
        return {
            "node": self._config.rules.node,
            "version": __version__,
            "up_s": round(monotonic() - self._began_at, 3),
            "draining": self.ledger.is_draining,
            "synced": self.inventory.synced,
            "watch_stale_s": round(stale, 3) if self.inventory.synced else None,
        }

    def thaw(self, uid: str | None, hold_for: float) -> bool:
        return self.keeper.thaw(uid, hold_for)

    def readiness(self) -> str:
        if self.ledger.is_draining:
            return "draining"
        return "" if self.inventory.synced else "the API server has not shown the pods of this node yet"

    def metrics(self) -> bytes:
        return self._exposition() if self._exposition is not None else b""


def freeze_node(config_path: str, environ: Mapping[str, str], *, check: bool = False) -> int:
    """The freezer's main. 0 after an orderly drain, 1 when something stayed asleep or could not be opened, 64 for a
    wrong configuration."""
    try:
        with open(config_path, encoding="utf-8") as file:
            config = load(file.read(), environ)
    except (OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"{config_path}: {error}\n")
        return EX_USAGE
    except ConfigError as error:
        sys.stderr.write("".join(f"{config_path}: {line}\n" for line in error.lines))
        return EX_USAGE
    form, level, fd, _ = settings("", config.log_level)
    log = Log(LineWriter(fd), {"node": config.rules.node}, level=level, format=form._replace(name="freezer"))
    for note in config.notes:
        log.warning(note)
    if check:
        log.close()
        return 0
    if os.geteuid() != 0:
        log.warning("not running as uid 0: the kernel will refuse to freeze what belongs to root")
    if held := capabilities():
        log.warning("running with capabilities that are not needed; drop them all (FZ-120)", capabilities=held)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until somebody handles them in the proper order
    raise_limit()
    loop = _new_loop()
    code = 1
    try:
        freezer = Freezer(config, loop, log)
        gc.set_threshold(COLLECT_AFTER, 10, 10)
        try:
            code = loop.run_until_complete(freezer.run())
        finally:
            loop.run_until_complete(freezer.close())
    except (OSError, JournalError, ssl.SSLError) as error:
        log.emergency("the freezer cannot run", error=str(error))
    finally:
        loop.close()
    log.info("stopped", code=code)
    log.close()
    return code


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _tls(config: NodeConfig) -> ssl.SSLContext | None:
    listen = config.listen
    if not listen.certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(listen.certificate, listen.key)
    return context


def _stamps(config: NodeConfig) -> tuple[int, ...]:
    """When the certificate was last changed; 0 while it is being swapped."""
    found = []
    for path in filter(None, (config.listen.certificate, config.listen.key)):
        try:
            found.append(os.stat(path).st_mtime_ns)
        except OSError:
            found.append(0)
    return tuple(found)


def _port_of(server: asyncio.AbstractServer) -> int:
    sockets = getattr(server, "sockets", ())
    name = sockets[0].getsockname() if sockets else ""
    return int(name[1]) if isinstance(name, tuple) else 0
