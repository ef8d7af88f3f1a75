"""Decides how a template that only shows fields is written: as one expression of Python, made of snippets kept here.

Theory of operation. The default template and most others are text and `{{.A.B}}`, `{{js .A.B}}`, `{{.A.B | js}}`. Each
such action has a snippet that means the same, and all of them together fill one format: a line then costs one call
instead of two or three for each field, a third of the instructions. Nothing of the template's text becomes Python: it
is in the format, which is data; the snippets are the ones below. What the revision is called is filled in beforehand.

Whatever is not found here is `compiler`'s, and what both can do they do alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from queueproxy.codec.headers import HOST, REFERER, USER_AGENT
from queueproxy.codec.http1 import RequestHead
from queueproxy.requestlog.escape import html, js, urlquery
from queueproxy.requestlog.inputs import PROTOCOLS, SHOWN, Client, Input, Revision, came_as, latency, trace_id
from queueproxy.requestlog.parser import Body
from queueproxy.requestlog.tree import Action, Field, Function, Pipe, Text

__all__ = ["ESCAPES", "Line", "direct", "of_input"]

# head, its special, client, status, size, took in seconds
Line = Callable[[RequestHead, dict[int, bytes], Client, int, int, float], bytes]

ESCAPES: Final = {"js": js, "html": html, "urlquery": urlquery}
KEPT: Final = 256  # escaped user agents; a service has a handful
LONGEST: Final = 512  # bytes of one that is kept

_SNIPPETS: Final = {
    ("Request", "Method"): "head.method",
    ("Request", "RequestURI"): "head.target if client.heads.raw.startswith(head.target, len(head.method) + 1)"
    " else came_as(client.heads.raw)",
    ("Request", "ContentLength"): "-1 if head.body == 2 else head.content_length",
    ("Request", "RemoteAddr"): "client.remote",
    ("Request", "Host"): "special.get(HOST, b'')",
    ("Request", "Proto"): "PROTOCOLS[head.minor]",
    ("Request", "UserAgent"): "special.get(USER_AGENT, b'')",
    ("Request", "Referer"): "special.get(REFERER, b'')",
    ("Response", "Code"): "status",
    ("Response", "Size"): "size",
    ("Response", "Latency"): "latency(took)",
    ("TraceID",): "trace_id(special)",
}
# With `js` around them: our own digits and dots need none, a user agent is seen again and again, a referer is rare.
_ESCAPED: Final = {
    ("Request", "RemoteAddr"): "client.remote",
    ("Request", "Proto"): "PROTOCOLS[head.minor]",
    ("Request", "UserAgent"): "kept.get(agent := special.get(USER_AGENT, b'')) or learn(agent)",
    ("Request", "Referer"): "js(text) if (text := special.get(REFERER, b'')) else b''",
}


def direct(nodes: Body, revision: Revision | None) -> Line | None:
    """None for a template that does more than show fields that are known here."""
    form = b""
    snippets: list[str] = []
    for node in nodes:
        if isinstance(node, Text):
            form += node.value.replace(b"%", b"%%")
            continue
        found = _shown(node.pipe) if isinstance(node, Action) else None
        if found is None:
            return None
        path, escapes = found
        if path[0] == "Revision":
            if revision is None:
                return None
            text = getattr(revision, _REVISION[path[1]])
            for name in escapes:
                text = ESCAPES[name](text)
            form += text.replace(b"%", b"%%")
            continue
        form += SHOWN[path][0]
        snippets.append(_snippet(path, escapes))
    kept: dict[bytes, bytes] = {}
    known: dict[str, Any] = {
        **ESCAPES, "form": form, "kept": kept, "learn": _learner(kept), "HOST": HOST, "REFERER": REFERER,
        "USER_AGENT": USER_AGENT, "PROTOCOLS": PROTOCOLS, "came_as": came_as, "latency": latency, "trace_id": trace_id,
    }  # fmt: skip
    filled = "".join(f"({snippet})," for snippet in snippets)
    made: Line = eval(f"lambda head, special, client, status, size, took: form % ({filled})", known)
    return made


def of_input(line: Line) -> Callable[[Input], bytes]:
    """The same for an input."""
    return lambda input: line(
        input.head, input.head.special, input.client, input.status, input.size, input.took
    )  # fmt: skip


_REVISION: Final = {
    "Name": "name", "Namespace": "namespace", "Service": "service", "Configuration": "configuration", "PodName": "pod",
    "PodIP": "pod_ip",
}  # fmt: skip


def _shown(pipe: Pipe) -> tuple[tuple[str, ...], list[str]] | None:
    """Path and escapes of `{{.A.B}}`, `{{js .A.B}}`, `{{.A.B | js}}`; the first escape is the innermost."""
    if pipe.variables:
        return None
    first, rest = pipe.commands[0], pipe.commands[1:]
    escapes: list[str] = []
    args = first.args
    if isinstance(args[0], Function) and args[0].name in ESCAPES and len(args) == 2:
        escapes.append(args[0].name)
        args = (args[1],)
    for command in rest:
        word = command.args[0]
        if len(command.args) > 1 or not isinstance(word, Function) or word.name not in ESCAPES:
            return None
        escapes.append(word.name)
    word = args[0]
    if len(args) != 1 or not isinstance(word, Field):
        return None
    path = tuple(word.names)
    known = path in _SNIPPETS or (path[0] == "Revision" and len(path) == 2 and path[1] in _REVISION)
    if not known or (escapes and path in SHOWN and SHOWN[path][0] != b"%b"):
        return None
    return path, escapes


def _snippet(path: tuple[str, ...], escapes: list[str]) -> str:
    snippet = _SNIPPETS[path]
    if escapes[:1] == ["js"] and path in _ESCAPED:
        snippet, escapes = _ESCAPED[path], escapes[1:]
    for name in escapes:
        snippet = f"{name}({snippet})"
    return snippet


def _learner(kept: dict[bytes, bytes]) -> Callable[[bytes], bytes]:
    def learn(text: bytes) -> bytes:
        escaped = js(text)
        if len(text) <= LONGEST:
            if len(kept) >= KEPT:
                kept.clear()
            kept[text] = escaped
        return escaped

    return learn
