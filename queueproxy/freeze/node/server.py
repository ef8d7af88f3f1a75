"""Serves the sidecars' port 9696: our own HTTP/1.1 codec, because waking an app waits for it (design D4).

What it touches: accepted connections, nothing else. Who a caller is, `Door` says; what becomes of a wish, `Desk` says;
both may answer before they return, and on the common path they do: a known token and a kernel that confirms at once
make one pass from bytes to answer without a task, a timer or a future.

A request is looked at as soon as it is complete, even while an earlier one of the same connection still waits for the
kernel: a thaw overtakes the freeze it makes pointless. Answers leave in the order of the requests.

What happens when callers misbehave (FZ-131, FZ-134): a head or body over 4 KiB is 413 and the end; a message
that takes longer than 2 s, or a connection that says nothing for so long, is cut off; so is one that could not prove
who it is. A full house makes room by dropping a stranger. Connections of known sidecars stay open for ever.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from typing import Final, cast

from queueproxy.clock import http_date
from queueproxy.codec.http1 import HEAD, PAUSED, BadMessage, RequestHead, RequestReader
from queueproxy.freeze.node.call import KIND_WORDS, MAX_HEAD, Call, Kind
from queueproxy.freeze.node.claims import token_key
from queueproxy.freeze.node.port import Admission, Answered, Port
from queueproxy.freeze.node.reply import answer_of, last_word
from queueproxy.freeze.node.usual import UsualHead
from queueproxy.freeze.wire import (
    OldAction,
    Problem,
    StateRequest,
    View,
    Wanted,
    WireError,
    decode_old,
    decode_request,
)

__all__ = ["SidecarConnection", "plain_address"]

DEPTH: Final = 4  # requests of one connection that may wait for answers: a freeze, its thaw, and some air
_UNKNOWN, _VIEW, _STATE, _OLD = Kind  # Python 3.11: an enum's attribute is 900 instructions
_TOO_LARGE, _IDLE = Problem.TOO_LARGE, Wanted.IDLE


class SidecarConnection(asyncio.Protocol):
    """One connection to 9696. `uid`: the pod that it proved to speak for, "" before."""

    __slots__ = (
        "_call", "_calls", "_closing", "_port", "_read", "_reader", "_timer", "_transport", "_usual", "peer", "uid",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, port: Port) -> None:
        self._port = port
        self._reader = RequestReader(self)
        self._calls: deque[Call] = deque()  # complete and not answered on the wire yet
        self._call: Call | None = None  # its body is being read
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._read = b""  # all that is being looked at, when it began with a message
        self._usual: UsualHead | None = None
        self.peer = ""
        self.uid = ""

    def __repr__(self) -> str:
        return f"<SidecarConnection {self.peer} pod={self.uid or '?'} waiting={len(self._calls)}>"

    # -- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        port, name = self._port, transport.get_extra_info("peername")
        self.peer = plain_address(str(name[0])) if isinstance(name, tuple) else ""
        if not port.arrived(self):
            self._closing = True
            self._transport.abort()
            return
        self._timer = port.loop.call_later(port.read_for, self._too_slow)

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()
        self._calls.clear()
        self._call = None

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            reader = self._reader
            if reader.state == HEAD and not reader.held and not self._calls:
                if self._usual is not None and self._served_as_usual(self._usual, data):
                    return
                self._read = data
            if self._fits(data):
                reader.feed(data)
            self._read = b""
            self._read_on()
        except BadMessage as bad:
            self._refuse(Problem.MALFORMED, bad.reason)
        except Exception as error:  # nothing a caller sends may raise out of here (FZ-131); if it does, it is our bug
            self._failed(error)

    # -- what the codec says

    def head_received(self, head: RequestHead) -> None:
        call = Call(head)
        if head.body and call.problem is not _TOO_LARGE:
            self._call = call
            return
        if head.body:  # it will not be read: the connection ends with the answer
            call.keep = False
        self._complete(call)

    def body_received(self, data: bytes) -> None:
        call = self._call
        if call is None:
            return
        call.body_received(data)
        if call.problem is _TOO_LARGE:
            call.keep = False
            self._call = None
            self._complete(call)

    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None:
        call, self._call = self._call, None
        if call is not None:
            self._complete(call)

    def raw_received(self, data: bytes) -> None:
        """Nothing is ever upgraded here."""

    # -- reading

    def _read_on(self) -> None:
        """Looks at what is pipelined behind a complete request, and keeps the deadline of a half-read one."""
        reader = self._reader
        while reader.state == PAUSED and not self._closing:
            if len(self._calls) >= DEPTH:
                self._transport.pause_reading()
                return
            if self._fits(b""):
                reader.resume()
            if reader.state == HEAD:
                break
        if self._closing:
            return
        if reader.mid_message:
            if self._timer is None:
                self._timer = self._port.loop.call_later(self._port.read_for, self._too_slow)

    def _fits(self, data: bytes) -> bool:
        """Whether a head may still become one of 4 KiB; if not, says so and ends the connection."""
        reader = self._reader
        if len(reader.held) + len(data) <= MAX_HEAD or reader.state not in (HEAD, PAUSED):
            return True
        if reader.state == PAUSED and data:
            return True  # it waits its turn; how much may wait is bounded by pausing the transport
        if (reader.held + data).find(b"\r\n\r\n", 0, MAX_HEAD) >= 0:
            return True
        self._refuse(_TOO_LARGE, f"a head of more than {MAX_HEAD} bytes")
        return False

    def _too_slow(self) -> None:
        self._timer = None
        self._port.cut_off["slow"] += 1
        self.drop()

    # -- one call, from complete to answered

    def _complete(self, call: Call) -> None:
        self._stop_timer()
        self._calls.append(call)
        if call.kind is _UNKNOWN:
            call.keep = False  # among them HEAD, whose answer would have to be framed differently
        if not call.keep:
            self._closing = True  # what comes after it is not looked at
        if call.kind is _OLD and (call.old_token or not call.token):
            self._complete_old(call)
        elif call.problem is not None:
            self._answer(call, call.problem)
        elif call.kind is _UNKNOWN or call.kind is _OLD:
            self._answer(call, Problem.NOT_FOUND)
        elif not call.token:
            self._answer(call, Problem.UNAUTHENTICATED, "no bearer token")
        else:
            self._port.door.admit(call.token, call.secret, self.peer, lambda admission: self._admitted(call, admission))

    def _served_as_usual(self, usual: UsualHead, data: bytes) -> bool:
        """Whether this was a wish whose head had been read before; if not, nothing has happened."""
        call = usual.call(data)
        admission = self._port.door.admit_again(usual.key, self.peer) if call is not None else None
        if call is None or admission is None:
            return False
        self._calls.append(call)
        self._serve(call, admission)
        return True

    def _admitted(self, call: Call, admission: Admission) -> None:
        if self._transport.is_closing():
            return
        try:
            if call.kind is _OLD:
                self._serve_old(call, admission)
            else:
                self._serve(call, admission)
        except Exception as error:
            self._failed(error)

    def _serve(self, call: Call, admission: Admission) -> None:
        if admission.problem is not None:
            self._answer(call, admission.problem, retry_after_s=admission.retry_after_s)
            return
        port, uid = self._port, admission.uid
        if self.uid and uid != self.uid:
            self._answer(call, Problem.FORBIDDEN)  # a connection speaks for one pod (T-01)
            return
        entry = port.sessions.enter(uid, self, call.secret, port.desk.sidecar_of(uid))
        if not entry.allowed:
            self._lock_out(call)
            return
        self._welcome(uid)
        if self._read and call.token:
            self._usual = UsualHead.learnt(self._read, call, token_key(call.token)) or self._usual
        issue = entry.issue

        def answered(view: View | None, problem: Problem | None, detail: str) -> None:
            if view is not None and issue is not None and problem is None:
                view = view._replace(session=issue)
            self._answer(call, problem, detail, view)

        if call.kind is _VIEW:
            port.desk.viewed(uid, answered)
            return
        try:
            request = decode_request(call.body)
        except WireError as error:
            self._answer(call, error.kind, error.detail)
            return
        wait = port.door.pace(uid)
        if not wait:
            port.desk.asked(uid, request, answered, fresh=admission.fresh)
        elif request.wanted is _IDLE:
            self._answer(call, Problem.RATE_LIMITED, retry_after_s=wait)
        else:  # a thaw is never refused to its owner, but one that comes in a flood has to wait a little
            port.loop.call_later(wait, self._serve_late, uid, request, answered, admission.fresh)

    def _serve_late(self, uid: str, request: StateRequest, answered: Answered, fresh: bool) -> None:
        if not self._transport.is_closing():
            self._port.desk.asked(uid, request, answered, fresh=fresh)

    def _lock_out(self, call: Call) -> None:
        """A good token without the session (FZ-129)."""
        if self._port.door.locked_out(self.peer):
            self._port.cut_off["locked out"] += 1
            self.drop()
        else:
            self._answer(call, Problem.SESSION_REQUIRED)

    def _welcome(self, uid: str) -> None:
        if not self.uid:
            self.uid = uid
            self._port.proved(self)

    def _complete_old(self, call: Call) -> None:
        """The protocol of old, in the order in which the daemon of old checked."""
        if not self._port.old_protocol:
            self._answer(call, Problem.NOT_FOUND)
        elif call.problem is not None:
            self._answer(call, call.problem)
        elif not call.old_token:
            self._answer(call, Problem.MALFORMED)
        else:
            self._port.door.admit(call.old_token, None, self.peer, lambda admission: self._admitted(call, admission))

    def _serve_old(self, call: Call, admission: Admission) -> None:
        port, uid = self._port, admission.uid
        if admission.problem is not None:
            self._answer(call, admission.problem)
        elif self.uid and uid != self.uid:
            self._answer(call, Problem.FORBIDDEN)
        elif port.sessions.held(uid, port.desk.sidecar_of(uid)):
            # It has no secrets, so a sidecar that does is not to be overruled by whoever found the token (FZ-129).
            self._lock_out(call)
        else:
            self._welcome(uid)
            try:
                action = decode_old(call.body)
            except WireError as error:
                self._answer(call, error.kind)
                return
            if port.door.pace(uid) and action is OldAction.PAUSE:
                self._answer(call, None)  # it runs on, which is all that such a client needs to know
                return
            port.desk.asked_of_old(
                uid,
                action,
                lambda view, problem, detail: self._answer(call, problem, detail, view),
                fresh=admission.fresh,
            )

    # -- answers

    def _answer(
        self,
        call: Call,
        problem: Problem | None,
        detail: str = "",
        view: View | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        if call.answer is not None or self._transport.is_closing():
            return
        if problem is not None and not self.uid:
            call.keep = False  # a stranger that could not prove anything starts anew
            self._closing = True
        status, call.answer = answer_of(call, http_date(), problem, detail, view, retry_after_s)
        self._port.answers[KIND_WORDS[call.kind], status] += 1
        self._flush()

    def _flush(self) -> None:
        """Writes what is answered, in order."""
        calls, transport = self._calls, self._transport
        was_full = len(calls) >= DEPTH
        while calls and (answer := calls[0].answer) is not None:
            call = calls.popleft()
            transport.write(answer)
            if not call.keep:
                self.end()
                return
        if was_full and len(calls) < DEPTH and not self._closing:
            self._port.loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._closing or self._transport.is_closing() or len(self._calls) >= DEPTH:
            return
        try:
            self._read_on()
        except BadMessage as bad:
            self._refuse(Problem.MALFORMED, bad.reason)
        except Exception as error:
            self._failed(error)
        if not self._closing and len(self._calls) < DEPTH:
            self._transport.resume_reading()

    def _refuse(self, problem: Problem, detail: str) -> None:
        """What is not HTTP gets one last word, unless that would overtake an answer: then the connection just ends."""
        self._closing = True
        self._port.answers["unreadable", problem.status] += 1
        if not self._calls:
            self._transport.write(last_word(http_date(), problem, detail))
        self.end()

    def _failed(self, error: Exception) -> None:
        self._port.errors += 1
        # Where and what kind, but not the error's text: it may quote what the caller sent, secrets included (T-21).
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        self._port.log.error(
            "a call failed inside the freezer", error=type(error).__name__, where=where, pod=self.uid, peer=self.peer
        )
        self.drop()

    # -- the end

    def drop(self) -> None:
        """Without another word."""
        self._forget()
        self._transport.abort()

    def end(self) -> None:
        self._forget()
        self._transport.close()

    def _forget(self) -> None:
        self._closing = True
        self._stop_timer()
        self._port.left(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def plain_address(host: str) -> str:
    """As the API server writes it: no zone, and IPv4 without its IPv6 coat (a dual-stack listener puts it on)."""
    host = host.partition("%")[0]
    return host.removeprefix("::ffff:") if host.startswith("::ffff:") and "." in host else host
