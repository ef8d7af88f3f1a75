"""Decodes and encodes what sidecar and freezer say to each other: protocol version 1, and container-freezer's of old.

Theory of operation
-------------------
Version 1 (design 5) is HTTP/1.1 and JSON. The version is the first part of the path, so a node that does not know it
answers 404 and nobody guesses. A sidecar says what it wants (`StateRequest`); the node answers what the kernel
confirmed (`View`) or why not (`Refusal`, application/problem+json). Neither side believes the other: types, ranges and
sizes are checked here, unknown fields are ignored, and whatever cannot be read is one `WireError` with a kind from
`Problem`. Strings that come back out in a header or a log line are bounded and printable.

The old protocol is a POST to any path with the token in the header `Token` and `{"action":"pause"}` or
`{"action":"resume"}`; 200 with nothing in it is the answer.

Heads are not here: on the node they are the server's, on the client they are a prebuilt prefix.
"""

from __future__ import annotations

import json
import re
from enum import Enum, IntEnum
from functools import lru_cache
from math import isfinite
from typing import Any, Final, NamedTuple, NoReturn

from queueproxy.freeze.annotations import Liveness, Mode, PodPolicy
from queueproxy.freeze.vocabulary import Rung

__all__ = [
    "LEASE_S", "MAX_ANSWER", "MAX_BODY", "MAX_GENERATION", "OLD_TOKEN_HEADER", "PATH_SELF", "PATH_STATE",
    "PROBLEM_TYPE", "RUNG_WORDS", "SESSION_HEADER", "WANTED_WORDS",
    "OldAction", "Problem", "Refusal", "StateRequest", "View", "Wanted", "WireError",
    "decode_old", "decode_problem", "decode_request", "decode_view",
    "encode_old", "encode_problem", "encode_request", "encode_view",
]  # fmt: skip

PATH_SELF: Final = "/v1/pods/self"  # GET: the view
PATH_STATE: Final = "/v1/pods/self/state"  # PUT: a wish
SESSION_HEADER: Final = "Queueproxy-Session"
OLD_TOKEN_HEADER: Final = "Token"  # noqa: S105 - a header's name
PROBLEM_TYPE: Final = "application/problem+json"
MAX_BODY: Final = 4096  # bytes of a request's body (FZ-134)
MAX_ANSWER: Final = 16384  # bytes of an answer's body
MAX_GENERATION: Final = (1 << 53) - 1  # exact in every JSON reader
LEASE_S: Final = 30.0  # what a wish without a lease means (FZ-090)
_MAX_REASON: Final = 200  # characters
_MAX_SESSION: Final = 128
_URN: Final = "urn:queueproxy:"


class Wanted(IntEnum):
    """What the sidecar wants for its app."""

    ACTIVE = 0
    IDLE = 1
    TERMINATING = 2


class StateRequest(NamedTuple):
    """A wish. `rung` is the deepest the sidecar wants now and means something only when idle."""

    wanted: Wanted
    generation: int
    lease_s: float = LEASE_S
    reason: str = ""
    rung: Rung = Rung.FROZEN


class View(NamedTuple):
    """What the kernel confirmed, and on which terms."""

    rung: Rung
    generation: int
    mechanism: str = ""
    took_us: int = 0
    session: str | None = None
    lease_s: float = LEASE_S
    policy: PodPolicy | None = None


class Problem(Enum):
    """Everything a node may refuse: kind, status and title."""

    MALFORMED = ("malformed", 400, "The request cannot be read")
    UNAUTHENTICATED = ("unauthenticated", 401, "The token is not valid")
    FORBIDDEN = ("forbidden", 403, "Not allowed")  # one body for every reason (T-20)
    SESSION_REQUIRED = ("session-required", 403, "Another connection holds this pod")
    NOT_FOUND = ("not-found", 404, "There is nothing here")
    STALE_GENERATION = ("stale-generation", 409, "A newer generation is known")
    TERMINAL = ("terminal", 409, "The pod is ending and stays awake")
    TOO_LARGE = ("too-large", 413, "The request is too large")
    RATE_LIMITED = ("rate-limited", 429, "Too many requests")
    NOT_CONFIRMED = ("not-confirmed", 502, "The kernel did not confirm the state")
    DRAINING = ("draining", 503, "The freezer is stopping")
    NOT_READY = ("not-ready", 503, "The freezer does not know this pod yet")

    def __init__(self, kind: str, status: int, title: str) -> None:
        self.kind = kind
        self.status = status
        self.title = title


_PROBLEMS: Final = {problem.kind: problem for problem in Problem}


class Refusal(NamedTuple):
    """A problem as the sidecar received it. `problem` is None when the body names none that we know."""

    status: int
    problem: Problem | None
    detail: str = ""
    view: View | None = None
    retry_after_s: float | None = None

    @property
    def words(self) -> str:
        """For a log line."""
        if self.problem is None:
            return f"the freezer answered with status {self.status}"
        return f"refused: {self.detail or self.problem.title}"


class WireError(ValueError):
    """A body that cannot be used. `kind` is the problem to answer with, `detail` one printable line."""

    def __init__(self, kind: Problem, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


WANTED_WORDS: Final = {Wanted.ACTIVE: "active", Wanted.IDLE: "idle", Wanted.TERMINATING: "terminating"}
RUNG_WORDS: Final = {Rung.RUNNING: "running", Rung.THROTTLED: "throttled", Rung.FROZEN: "frozen"}
_WANTED: Final = {word: wanted for wanted, word in WANTED_WORDS.items()}
# A reclaimed pod is a frozen one that takes a little longer; this version does not tell them apart.
_RUNGS: Final = {word: rung for rung, word in RUNG_WORDS.items()} | {"reclaimed": Rung.FROZEN}
_MODE_WORDS: Final = {mode: mode.name.lower() for mode in Mode}
_MODES: Final = {word: mode for mode, word in _MODE_WORDS.items()}
_LIVENESS_WORDS: Final = {liveness: liveness.name.lower() for liveness in Liveness}
_LIVENESS: Final = {word: liveness for liveness, word in _LIVENESS_WORDS.items()}


# === Version 1, what the sidecar says. ===


def encode_request(request: StateRequest) -> bytes:
    """The body of PUT /v1/pods/self/state. Of one shape, like the view: a general encoder takes ten times as long."""
    sleep = ""
    if request.wanted is Wanted.IDLE:
        sleep = f'"rung":"{RUNG_WORDS[request.rung]}","lease_s":{_short(request.lease_s)},'
    state, reason = WANTED_WORDS[request.wanted], _quoted(_clean(request.reason))
    return f'{{"state":"{state}","generation":{request.generation},{sleep}"reason":{reason}}}'.encode()


# What `encode_request` writes for any but the oddest reason; the parts mean the same to the JSON reader below.
_PLAIN: Final = re.compile(
    rb'{"state":"(active|idle|terminating)","generation":(0|[1-9][0-9]{0,14}),'
    rb'(?:"rung":"(throttled|frozen)","lease_s":(0|[1-9][0-9]{0,8}),)?"reason":"([ !#-\[\]-~]{0,200})"}'
)


def decode_request(body: bytes) -> StateRequest:
    """Raises WireError."""
    if (plain := _PLAIN.fullmatch(body)) is not None:
        state, number, word, lease, reason = plain.groups()
        rung = Rung.FROZEN if word is None else _RUNGS[word.decode()]
        seconds = LEASE_S if lease is None else float(lease)
        return StateRequest(_WANTED[state.decode()], int(number), seconds, reason.decode(), rung)
    if len(body) > MAX_BODY:
        raise WireError(Problem.TOO_LARGE, f"more than {MAX_BODY} bytes")
    said = _load(body)
    wanted = _word(said, "state", _WANTED)
    generation = _generation(said)
    lease = _seconds(said, "lease_s", LEASE_S)
    rung = _word(said, "rung", _RUNGS, Rung.FROZEN)
    if wanted is Wanted.IDLE and rung is Rung.RUNNING:
        _wrong('"rung" cannot be running when the state is idle')
    return StateRequest(wanted, generation, lease, _text(said, "reason"), rung)


# === Version 1, what the node answers. ===


def encode_view(view: View) -> bytes:
    """The body of every 200."""
    return _view_said(view).encode()


def decode_view(body: bytes) -> View:
    """Raises WireError."""
    if len(body) > MAX_ANSWER:
        raise WireError(Problem.TOO_LARGE, f"more than {MAX_ANSWER} bytes")
    return _view(_load(body))


def encode_problem(
    problem: Problem, detail: str = "", view: View | None = None, retry_after_s: float | None = None
) -> bytes:
    """The body of every refusal. Of FORBIDDEN nothing but the name is told, whatever the caller knows (T-20)."""
    said = f'{{"type":"{_URN}{problem.kind}","title":"{problem.title}","status":{problem.status}'
    if problem is not Problem.FORBIDDEN:
        if detail:
            said += f',"detail":{_quoted(_clean(detail))}'
        if view is not None:
            said += f',"view":{_view_said(view)}'
        if retry_after_s is not None:
            said += f',"retry_after_s":{_short(retry_after_s)}'
    return (said + "}").encode()


def decode_problem(status: int, body: bytes) -> Refusal:
    """Never raises: a refusal is one, whatever its body looks like."""
    try:
        if len(body) > MAX_ANSWER:
            return Refusal(status, None)
        said = _load(body)
        kind = said.get("type")
        problem = _PROBLEMS.get(kind.removeprefix(_URN)) if isinstance(kind, str) and kind.startswith(_URN) else None
        detail = _text(said, "detail")
    except WireError:
        return Refusal(status, None)
    view, retry_after = None, None
    try:
        view = _view(said["view"]) if isinstance(said.get("view"), dict) else None
        retry_after = _seconds(said, "retry_after_s", 0.0) if "retry_after_s" in said else None
    except WireError:
        pass
    return Refusal(status, problem, detail, view, retry_after)


def _view_said(view: View) -> str:
    session = f',"session":{_quoted(view.session)}' if view.session is not None else ""
    policy = f',"policy":{_policy_said(view.policy)}' if view.policy is not None else ""
    return (
        f'{{"state":"{RUNG_WORDS[view.rung]}","generation":{view.generation},"mechanism":{_quoted(view.mechanism)},'
        f'"took_us":{view.took_us},"lease_s":{_short(view.lease_s)}{session}{policy}}}'
    )


@lru_cache(maxsize=512)  # one for each pod of a large node: it is in every answer and hardly ever changes
def _policy_said(policy: PodPolicy) -> str:
    said = {
        "mode": _MODE_WORDS[policy.mode],
        "freeze_after_s": policy.freeze_after_s,
        "throttle_after_s": policy.throttle_after_s,
        "min_uptime_s": policy.min_uptime_s,
        "liveness": _LIVENESS_WORDS[policy.liveness],
        "containers": list(policy.containers),
        "reason": _clean(policy.reason),
        "deep_check_s": policy.deep_check_s,
        "server_timing": policy.server_timing,
    }
    return json.dumps(said, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _view(said: dict[str, Any]) -> View:
    took = said.get("took_us", 0)
    if type(took) is not int or not 0 <= took <= MAX_GENERATION:
        _wrong('"took_us" is not a number of microseconds')
    session = said.get("session")
    # It goes back out in a header, so nothing but base64url.
    if session is not None and not (
        isinstance(session, str)
        and 0 < len(session) <= _MAX_SESSION
        and session.isascii()
        and session.replace("-", "a").replace("_", "a").isalnum()
    ):
        _wrong('"session" is not a secret of ours')
    policy = said.get("policy")
    if policy is not None and not isinstance(policy, dict):
        _wrong('"policy" is not an object')
    return View(
        _word(said, "state", _RUNGS),
        _generation(said),
        _text(said, "mechanism"),
        took,
        session,
        _seconds(said, "lease_s", LEASE_S),
        None if policy is None else _policy(policy),
    )


def _policy(said: dict[str, Any]) -> PodPolicy:
    containers = said.get("containers", [])
    if not isinstance(containers, list) or not all(isinstance(name, str) for name in containers):
        _wrong('"containers" is not a list of names')
    return PodPolicy(
        _word(said, "mode", _MODES), _seconds(said, "freeze_after_s", None), _seconds(said, "throttle_after_s", None),
        _seconds(said, "min_uptime_s", 0.0), _word(said, "liveness", _LIVENESS, Liveness.KNOCK),
        tuple(_clean(name) for name in containers), _text(said, "reason"), _seconds(said, "deep_check_s", None),
        said.get("server_timing") is True,
    )  # fmt: skip


# === The protocol of old. ===


class OldAction(Enum):
    """The two things a queue-proxy of Knative 1.0 to 1.9 says."""

    PAUSE = "pause"
    RESUME = "resume"


def encode_old(action: OldAction) -> bytes:
    """As the Go queue-proxy wrote it: one key, no space."""
    return b'{"action":"%s"}' % action.value.encode()


def decode_old(body: bytes) -> OldAction:
    """Raises WireError: MALFORMED for what is no JSON object, NOT_FOUND for another action, as the daemon did."""
    if len(body) > MAX_BODY:
        raise WireError(Problem.TOO_LARGE, f"more than {MAX_BODY} bytes")
    action = _load(body).get("action")
    for known in OldAction:
        if action == known.value:
            return known
    raise WireError(Problem.NOT_FOUND, '"action" is neither pause nor resume')


# === Parts. ===


def _load(body: bytes) -> dict[str, Any]:
    try:
        said = _DECODER.decode(body.decode())  # UTF-8 and nothing else (RFC 8259 8.1)
    except (ValueError, RecursionError):  # deep nesting fits into 4 KiB; UnicodeDecodeError is a ValueError
        _wrong("not a JSON object")
    if not isinstance(said, dict):
        _wrong("not a JSON object")
    return said


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    said = dict(pairs)
    if len(said) != len(pairs):
        raise ValueError("a key twice")  # two readers could read two different things
    return said


# json.loads would make one for each call.
_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_object)


def _wrong(detail: str) -> NoReturn:
    raise WireError(Problem.MALFORMED, detail)


def _word(said: dict[str, Any], key: str, words: dict[str, Any], default: Any = None) -> Any:
    value = said.get(key)
    if value is None and default is not None:
        return default
    known = words.get(value) if isinstance(value, str) else None
    if known is None:
        _wrong(f'"{key}" is not one of {", ".join(words)}')
    return known


def _generation(said: dict[str, Any]) -> int:
    value = said.get("generation")
    if type(value) is not int or not 0 <= value <= MAX_GENERATION:
        _wrong('"generation" is not a number between 0 and 2^53')
    return value


def _seconds(said: dict[str, Any], key: str, default: Any) -> Any:
    value = said.get(key)
    if value is None:
        return default
    if type(value) not in (int, float) or not isfinite(value) or not 0 <= value <= MAX_GENERATION:
        _wrong(f'"{key}" is not a number of seconds')
    return float(value)


def _text(said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        _wrong(f'"{key}" is not text')
    return _clean(value)


def _clean(text: str) -> str:
    """Printable, encodable and short: it ends up in logs and on terminals."""
    text = text if len(text) <= _MAX_REASON else text[:_MAX_REASON]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


_quoted = json.dumps  # of a string alone this is one call into C


def _short(seconds: float) -> float:
    """Thirty seconds are written 30."""
    return int(seconds) if seconds == int(seconds) else seconds
