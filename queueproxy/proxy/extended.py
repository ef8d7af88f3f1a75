"""Runs requests past the extensions that are installed: innermost, as Go's options wrap handler and transport.

Used instead of its parents only where there is an extension (`extend`). The first one by order is the outermost: it
sees the request first and the answer last, and what an inner one answers goes through it like the app's answer. An
extension that breaks costs its request, never the process: 500, because what it would have refused or hidden must not
get through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from queueproxy.clock import http_date, monotonic
from queueproxy.codec.fields import AnswerHeaders, FramedHeaders
from queueproxy.codec.response import BadResponse, connection_line, status_line
from queueproxy.errors import Failure
from queueproxy.extensions import BODILESS, Answer, Outcome, Request, Response, written_back
from queueproxy.proxy.chain import Chain, Link
from queueproxy.proxy.measured import MeasuredExchange
from queueproxy.proxy.stage import ANSWERED, DIALLING

if TYPE_CHECKING:
    from queueproxy.codec.response import ResponseReader
    from queueproxy.proxy.plane import Plane

BROKEN: Final = Failure("extension", 500, "extension failed")  # which one is for the log, not for the client


def extend(plane: Plane, links: Sequence[Link]) -> Chain:
    """From now on the plane's requests go past these."""
    made = Chain(links, plane.recorder, plane.log)
    if plane.tracer is None:

        class Extended(ExtendedExchange):
            chain = made

        plane.exchange = Extended
    else:
        from queueproxy.proxy.extended_traced import traced

        plane.exchange = traced(made)
    return made


class ExtendedExchange(MeasuredExchange):
    """chain: the extensions; an attribute of the class that `extend` makes for them, so that nothing is looked up.

    view: the request as they see it, None until they have been asked. met: how many of them have been. passed: none has
    answered. held: one is thinking. spoilt: one broke over the app's answer. failure: why we answered.
    """

    chain: Chain
    view: Request | None = None
    met = 0
    passed = False
    held: asyncio.Task[Answer | None] | None = None
    spoilt = False
    failure = ""

    # -- the request

    def _when_awake(self) -> None:
        if self.plane.gate.is_open and not self.passed:
            self._look()
        else:
            super()._when_awake()

    def awake(self) -> None:
        """The end of a wait."""
        if self.passed:
            super().awake()
        else:
            self.thaw_wait = monotonic() - self.asleep_at
            self._look()

    def _look(self) -> None:
        # Past all waiting: from here on there is nothing that could be cancelled but a thought.
        self.stage = DIALLING
        self.view = Request(self.head, self.client.peer, self.plane.pool.host_header)
        self._ask()

    def _ask(self) -> None:
        """Asks those that were not asked yet, until one answers, breaks or wants to think."""
        links, view = self.chain.links, self.view
        assert view is not None
        while self.met < len(links):
            link = links[self.met]
            self.met += 1
            if link.request is None:
                continue
            try:
                said = link.request(view)
                if said is not None and not isinstance(said, Answer):
                    self._hold(said)
                    return
            except BaseException as error:
                self._break(link, "request", error)
                return
            if said is not None:
                self._answer(said)
                return
        self.passed = True
        view.seal()
        super()._when_awake()

    def _hold(self, said: Awaitable[Answer | None]) -> None:
        if not hasattr(said, "__await__"):
            raise TypeError(f"request returned {type(said).__name__}, not an Answer or None")
        self.held = self.plane.loop.create_task(_thought(said))
        self.held.add_done_callback(lambda held: self._told(held, said))

    def _told(self, held: asyncio.Task[Answer | None], said: object) -> None:
        if self.held is not held:  # the request ended meanwhile; what came of it is nobody's business
            if not held.cancelled():
                held.exception()
            elif isinstance(said, Coroutine):
                said.close()  # it may never have begun, and Python would complain
            return
        self.held = None
        try:
            answer = held.result()
            if answer is not None and not isinstance(answer, Answer):
                raise TypeError(f"request returned {type(answer).__name__}, not an Answer or None")
        except BaseException as error:
            self._break(self.chain.links[self.met - 1], "request", error)
            return
        if answer is None:
            self._ask()
        else:
            self._answer(answer)

    def _break(self, link: Link, hook: str, error: BaseException) -> None:
        self.chain.blame(link, hook, error)
        self.fail(BROKEN)

    # -- the answer

    def _answer(self, answer: Answer) -> None:
        """In the app's place; those further out see it like the app's."""
        lines = list(answer.lines)
        length = () if answer.status in BODILESS else ((b"Content-Length", b"%d" % len(answer.body)),)
        shown = Response(answer.status, FramedHeaders(lines, length))
        further_out = self.chain.links[: self.met - 1]
        if not self._show(shown, [link for link in self.chain.answers if link in further_out]):
            self.fail(BROKEN)
            return
        head = self.head
        self.stage = ANSWERED
        keep = self._keep = (
            head.keep_alive and not self.plane.closing and (self._request_ended or not self._upload_uncertain())
        )
        body = b"" if head.method == b"HEAD" else answer.body
        self.size = len(body)
        if b"date" not in shown.headers:
            lines += (b"Date", b": ", http_date(), b"\r\n")
        parts = [status_line(shown.status), *lines]
        parts += [b"%b: %b\r\n" % field for field in length]
        parts += (connection_line(keep=keep, minor=head.minor), b"\r\n", body)
        self.client.transport.write(b"".join(parts))
        self._finish(shown.status)
        self.client.exchange_ended(keep=keep, request_ended=self._request_ended)

    def _show(self, shown: Response, links: Iterable[Link]) -> bool:
        """Shows an answer to those in turn. False when one of them broke."""
        view = self.view
        for link in links:
            try:
                said = link.response(view, shown)  # type: ignore[arg-type, misc]
                if said is not None:
                    raise TypeError(f"response returned {type(said).__name__}, not None")
            except BaseException as error:
                self.chain.blame(link, "response", error)
                return False
        shown.headers.seal()
        return True

    def response_received(self, response: ResponseReader) -> None:
        status = response.status
        if self.chain.answers:
            shown = Response(status, AnswerHeaders(response))
            if not self._show(shown, self.chain.answers):
                self.app_status, self.headed_at, self.spoilt = status, monotonic(), True
                raise BadResponse(BROKEN.text)  # out of the parser; then `broken`
            written_back(response, shown)
        super().response_received(response)
        self.app_status = status

    def switched(self, protocol: bytes, lines: list[bytes]) -> None:
        """101 from the app."""
        if self.chain.answers:
            fixed = ((b"Connection", b"Upgrade"), (b"Upgrade", protocol))
            if not self._show(Response(101, FramedHeaders(lines, fixed)), self.chain.answers):
                self.fail(BROKEN)
                return
        super().switched(protocol, lines)

    # -- ends

    def broken(self, failure: Failure) -> None:
        """Bytes of the app, or the rest of the request, are not HTTP/1.1; or an extension broke over them."""
        super().broken(BROKEN if self.spoilt else failure)

    def fail(self, failure: Failure) -> None:
        self.failure = failure.kind
        super().fail(failure)

    def _let_go(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            held.cancel()
        super()._let_go()

    def _finish(self, status: int, now: float = 0.0) -> None:
        now = now or monotonic()
        super()._finish(status, now)
        chain, view = self.chain, self.view
        if view is None or not chain.ends:
            return
        upgraded = self.tunnel is not None
        outcome = Outcome(
            101 if upgraded else self.status or status,
            101 if upgraded else self.app_status,
            self.received,
            self.size,
            now - self.began_at,
            self.thaw_wait,
            self.headed_at - self.sent_at if self.headed_at else None,
            self.failure,
        )
        met = chain.links[: self.met]
        for link in chain.ends:
            if link in met:
                try:
                    link.finished(view, outcome)  # type: ignore[misc]
                except BaseException as error:
                    chain.blame(link, "finished", error)


async def _thought(said: Awaitable[Answer | None]) -> Answer | None:
    """A task that raises these ends the loop; an extension may not."""
    try:
        return await said
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"request raised {type(error).__name__}") from error
