"""Serves the part of the Kubernetes API that the freezer uses, over TLS: an API server's stand-in.

Pods (get, list, watch with versions, bookmarks, selectors, 410), TokenReview with real signatures, events. Callers
need the bearer token of the kubeconfig it writes. Answers have the form, codes and headers of a real server, so that
the official client cannot tell. It runs in a thread with a loop of its own; every public method may be called from any
other thread and has taken effect when it returns.

    with ApiServer(pods=[knative_pod()]) as api:
        token = api.mint_token(pod)         # what the kubelet would have projected
        freezer("--kubeconfig", api.kubeconfig_path)
        api.modify(pod, {"metadata": {"labels": {"a": "b"}}})
        api.outage("hang"); api.restore(); api.cut_watches(); api.forget_history()

`python -m tests.support.apiserver --folder DIR [pods.json …]` serves until its standard input ends; each line of it is
one call, `["mint_token", "default", "hello-…"]`, answered by one line of JSON.
"""

import argparse
import asyncio
import json
import random
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from aiohttp import web

from tests.support import authority
from tests.support.apistore import Change, Pod, Selector, Status, Store, selector
from tests.support.knative_pod import merged
from tests.support.tokens import AUDIENCE, claims_of

T = TypeVar("T")
OUTAGES = ("refuse", "hang", "error", "throttle", "unauthorized", "garbage")
API_AUDIENCE = "https://kubernetes.default.svc.cluster.local"
ACCOUNT = "system:serviceaccount:knative-serving:queueproxy-freezer"  # whom the kubeconfig speaks for


class ApiServer:
    """One cluster's front door."""

    def __init__(
        self,
        pods: Iterable[Mapping[str, Any]] = (),
        *,
        folder: str | Path | None = None,
        bind: str = "127.0.0.1",
        addresses: Sequence[str] = (),
        bookmark_every: float = 60.0,
        expired_as: str = "event",
        rights: Collection[tuple[str, str]] | None = None,
    ) -> None:
        """`folder`: for the kubeconfig and certificates, otherwise a temporary one. `addresses`: more that the
        certificate names. `expired_as`: whether 410 comes as an event of the watch, or as its status. `rights`: the
        (verb, resource) that the caller is granted; None: all."""
        self._temporary = tempfile.TemporaryDirectory(prefix="apiserver-") if folder is None else None
        self.folder = Path(self._temporary.name if self._temporary else str(folder))
        self.store = Store()
        for pod in pods:
            self.store.put(_completed(pod))
        self.bind = bind
        self.port = 0
        self.token = authority.signed({"sub": ACCOUNT, "aud": [API_AUDIENCE], "exp": 1 << 40})
        self._called = threading.Condition()
        self.calls: Counter[tuple[str, str]] = Counter()  # (verb, resource), as RBAC names them
        self.queries: list[dict[str, str]] = []  # of pod lists and watches
        self.events: list[dict[str, Any]] = []
        self.rights = rights
        self.bookmark_every = bookmark_every
        self.expired_as = expired_as
        self.list_delay = 0.0  # seconds a list takes
        self.tamper_list: Callable[[dict[str, Any]], dict[str, Any]] = lambda listed: listed
        self.tamper: Callable[[dict[str, Any]], dict[str, Any]] = lambda review: review
        self.ca_path, certificate, key = authority.certificates(
            self.folder, list(dict.fromkeys((bind, "127.0.0.1", "::1", *addresses)))
        )
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        self._outage = ""
        self._watchers: dict[asyncio.Queue[Change | None], web.Request] = {}
        self._open: set[asyncio.Transport] = set()
        self._over = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="apiserver", daemon=True)
        self._thread.start()
        self._do(self._start())

    # ---- life

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def url(self) -> str:
        host = f"[{self.bind}]" if ":" in self.bind else self.bind
        return f"https://{host}:{self.port}"

    @property
    def kubeconfig_path(self) -> Path:
        """A file that `kubectl` understands as well."""
        path = self.folder / "kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "tests",
                    "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "freezer"}}],
                    "clusters": [
                        {"name": "tests", "cluster": {"server": self.url, "certificate-authority": str(self.ca_path)}}
                    ],
                    "users": [{"name": "freezer", "user": {"token": self.token}}],
                }
            )
        )
        path.chmod(0o600)
        return path

    # ---- pods and tokens

    def add_pod(self, pod: Mapping[str, Any]) -> Pod:
        """Creates or replaces; returns it as stored."""
        return self._change(lambda: self.store.put(_completed(pod)))

    def modify(self, pod: Mapping[str, Any], changes: Mapping[str, Any]) -> Pod:
        """Merged into what is stored; None removes a key."""
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        return self._change(lambda: self.store.put(merged(self.store.pods[key], changes)))

    def terminate(self, pod: Mapping[str, Any]) -> Pod:
        """Marks it as being deleted, as `kubectl delete` does at first."""
        return self.modify(pod, {"metadata": {"deletionTimestamp": _now(), "deletionGracePeriodSeconds": 300}})

    def delete(self, pod: Mapping[str, Any]) -> None:
        self._change(lambda: self.store.remove(pod["metadata"]["namespace"], pod["metadata"]["name"]))

    def mint_token(
        self,
        pod: Mapping[str, Any],
        audience: str = AUDIENCE,
        container: str | None = None,
        *,
        valid_for: float = 3600.0,
    ) -> str:
        """A projected token of this pod; the containers of a pod get the same one."""
        return authority.signed(claims_of(pod, audience, wall=time.time(), valid_for=valid_for))

    # ---- faults

    def outage(self, kind: str) -> None:
        """Until `restore`: refuse connections, hang, answer 500, 429, 401 or nonsense. Open watches end; those of a
        server that hangs stay open and silent until then."""
        assert kind in OUTAGES, kind
        self._do(self._begin_outage(kind))

    def restore(self) -> None:
        self._do(self._end_outage())

    def cut_watches(self, *, mid_line: bool = False) -> int:
        """Ends every open watch without a word, or in the middle of one; returns how many."""
        return self._do(self._cut(mid_line))

    def say_in_watches(self, text: bytes) -> None:
        """Writes what no API server would into every open watch."""
        self._do(self._say(text))

    def forget_history(self) -> None:
        """As after a compaction: a watch from an older version is told 410."""
        self._do(_called(self.store.forget_history))

    @property
    def connections(self) -> int:
        """How many are open."""
        server = self._runner.server if self._runner is not None else None
        return len(server.connections) if server is not None else 0

    def wait_for_call(self, verb: str, resource: str, count: int = 1, within: float = 20.0) -> None:
        """Returns when so many such calls have come in all; a watch counts once it is being told of changes."""
        with self._called:
            assert self._called.wait_for(lambda: self.calls[verb, resource] >= count, within), self.calls

    @property
    def watching(self) -> int:
        return len(self._watchers)

    @property
    def reviews(self) -> int:
        return self.calls["create", "tokenreviews"]

    # ---- inside the thread

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _change(self, change: Callable[[], Change]) -> Pod:
        async def apply() -> Pod:
            made = change()
            if self._outage != "hang":
                for queue in self._watchers:
                    queue.put_nowait(made)
            return deepcopy(made.after or made.before or {})

        return self._do(apply())

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/version", _version)
        for path in ("/healthz", "/livez", "/readyz"):
            app.router.add_get(path, _healthy)
        app.router.add_get("/api/v1/pods", self._pods)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods", self._pods)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}", self._pod)
        app.router.add_post("/api/v1/namespaces/{namespace}/events", self._event)
        app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", self._review)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, self.bind, self.port, ssl_context=self._tls, reuse_address=True)
        await self._site.start()
        if not self.port:
            self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        self._over.set()
        await self._cut(False)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _begin_outage(self, kind: str) -> None:
        await self._end_outage()
        self._outage = kind
        self._over.clear()
        if kind == "refuse" and self._site is not None:
            site, self._site = self._site, None
            await site.stop()
            for transport in list(self._open):
                transport.abort()
        if kind != "hang":
            await self._cut(False)

    async def _end_outage(self) -> None:
        was, self._outage = self._outage, ""
        self._over.set()
        if was == "hang":
            await self._cut(False)
        if self._site is None:
            await self._listen()

    async def _cut(self, mid_line: bool) -> int:
        watchers = list(self._watchers.items())
        for queue, request in watchers:
            if mid_line and request.transport is not None and request._payload_writer is not None:
                await request._payload_writer.write(b'{"type":"MODIFIED","object":{"kind":"Pod","meta')
            if request.transport is not None:
                request.transport.abort()
            queue.put_nowait(None)
        return len(watchers)

    async def _say(self, text: bytes) -> None:
        for request in self._watchers.values():
            if request._payload_writer is not None:
                await request._payload_writer.write(text)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        """Outages, authentication, and refusals in the API's form."""
        if isinstance(request.transport, asyncio.Transport):
            self._open = {transport for transport in self._open if not transport.is_closing()} | {request.transport}
        try:
            if self._outage == "hang":
                await self._over.wait()
            if self._outage == "garbage":
                return web.Response(body=b"<html>captive portal</html>", content_type="text/html")
            if self._outage == "error":
                raise Status(500, "InternalError", "etcdserver: request timed out")
            if self._outage == "throttle":
                raise Status(429, "TooManyRequests", "Too many requests, please try again later.", 1)
            if request.headers.get("Authorization") not in (f"Bearer {self.token}", f"bearer {self.token}"):
                raise Status(401, "Unauthorized", "Unauthorized")
            if self._outage == "unauthorized":
                raise Status(401, "Unauthorized", "Unauthorized")
            return await handler(request)  # type: ignore[no-any-return]
        except Status as status:
            headers = {"Retry-After": str(status.retry_after)} if status.retry_after else {}
            return _json(status.body, status=status.code, headers=headers)
        except web.HTTPNotFound:
            body = Status(404, "NotFound", "the server could not find the requested resource").body
            return _json(body, status=404)

    def _count(self, verb: str, resource: str) -> None:
        with self._called:
            self.calls[verb, resource] += 1
            self._called.notify_all()
        if self.rights is not None and (verb, resource) not in self.rights:
            raise Status(403, "Forbidden", f'User "{ACCOUNT}" cannot {verb} resource "{resource}" at the cluster scope')

    async def _pod(self, request: web.Request) -> web.Response:
        self._count("get", "pods")
        key = (request.match_info["namespace"], request.match_info["name"])
        if key not in self.store.pods:
            raise Status(404, "NotFound", f'pods "{key[1]}" not found')
        return _json(self.store.pods[key])

    async def _event(self, request: web.Request) -> web.Response:
        self._count("create", "events")
        event = await request.json()
        self.events.append(event)
        return _json(event, status=201)

    async def _pods(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        selects = selector(
            query.get("fieldSelector", ""), query.get("labelSelector", ""), request.match_info.get("namespace", "")
        )
        watch = query.get("watch", "false").lower() in ("true", "1")
        self.queries.append(query)
        version = query.get("resourceVersion", "")
        if version and not version.isdigit():
            raise Status(400, "BadRequest", f'resourceVersion: Invalid value: "{version}"')
        if "resourceVersionMatch" in query and (watch or not version):
            raise Status(422, "Invalid", "resourceVersionMatch: Forbidden")
        if watch:
            return await self._watch(request, selects, query, version)
        self._count("list", "pods")
        await asyncio.sleep(self.list_delay)
        if version and int(version) > self.store.version:
            raise Status(504, "Timeout", f"Too large resource version: {version}, current: {self.store.version}", 1)
        listed = {
            "kind": "PodList",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": str(self.store.version)},
            # Items of a list carry neither kind nor version.
            "items": [
                {key: value for key, value in pod.items() if key not in ("kind", "apiVersion")}
                for pod in self.store.select(selects)
            ],
        }
        return _json(self.tamper_list(listed))

    async def _watch(
        self, request: web.Request, selects: Selector, query: Mapping[str, str], version: str
    ) -> web.StreamResponse:
        expired = None
        try:
            missed = self.store.since(int(version)) if version not in ("", "0") else []
        except Status as status:
            if self.expired_as == "status":
                self._count("watch", "pods")
                raise
            expired, missed = status, []
        timeout = int(query.get("timeoutSeconds", "0")) or random.randrange(1800, 3600)
        over_at = self._loop.time() + timeout
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        response.enable_chunked_encoding()
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._watchers[queue] = request
        self._count("watch", "pods")
        first = self.store.select(selects) if version in ("", "0") else []
        try:
            await response.prepare(request)
            if expired is not None:
                await _send(response, {"type": "ERROR", "object": expired.body})
                return response
            for pod in first:
                await _send(response, {"type": "ADDED", "object": pod})
            for change in missed:
                await self._tell(response, change, selects)
            while (left := over_at - self._loop.time()) > 0:
                try:
                    async with asyncio.timeout(min(self.bookmark_every, left)):
                        told = await queue.get()
                except TimeoutError:
                    if query.get("allowWatchBookmarks") == "true" and self._outage != "hang":
                        await _send(response, _bookmark(self.store.version))
                    continue
                if told is None:
                    return response
                await self._tell(response, told, selects)
            return response
        except ConnectionError:
            return response
        finally:
            del self._watchers[queue]

    async def _tell(self, response: web.StreamResponse, change: Change, selects: Selector) -> None:
        event = change.event(selects)
        if event is not None:
            await _send(response, event)

    async def _review(self, request: web.Request) -> web.Response:
        self._count("create", "tokenreviews")
        body = await request.json()
        if body.get("kind", "TokenReview") != "TokenReview":  # absent is what the path says
            raise Status(400, "BadRequest", "the object provided is unrecognized")
        spec = body.get("spec") or {}
        if not spec.get("token"):
            raise Status(400, "BadRequest", "token is required for TokenReview in authentication")
        review = {
            "kind": "TokenReview",
            "apiVersion": "authentication.k8s.io/v1",
            **body,
            "metadata": {},
            "status": self._judged(spec["token"], spec.get("audiences") or []),
        }
        return _json(self.tamper(review), status=201)

    def _judged(self, token: str, audiences: list[str]) -> dict[str, Any]:
        claims = authority.verified(token)
        wanted = audiences or [API_AUDIENCE]
        bound = (claims or {}).get("kubernetes.io", {})
        pod = self.store.pods.get((bound.get("namespace"), bound.get("pod", {}).get("name")))
        if claims is None or claims["exp"] <= time.time():
            return {"user": {}, "error": "invalid bearer token"}
        granted = [audience for audience in wanted if audience in claims["aud"]]
        if not granted:
            return {"user": {}, "error": "[invalid bearer token, token audiences do not match]"}
        if "pod" in bound and (pod is None or pod["metadata"]["uid"] != bound["pod"]["uid"]):
            return {"user": {}, "error": "[invalid bearer token, service account token has been invalidated]"}
        user: dict[str, Any] = {
            "username": claims["sub"],
            "uid": bound.get("serviceaccount", {}).get("uid", ""),
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{bound.get('namespace')}",
                       "system:authenticated"],
        }  # fmt: skip
        extra = {"credential-id": f"JTI={claims.get('jti', '')}"}
        for thing in ("node", "pod"):
            if thing in bound:
                extra |= {f"{thing}-name": bound[thing]["name"], f"{thing}-uid": bound[thing]["uid"]}
        user["extra"] = {f"authentication.kubernetes.io/{key}": [value] for key, value in extra.items()}
        return {"authenticated": True, "user": user, "audiences": granted}


def _json(body: object, status: int = 200, headers: Mapping[str, str] = {}) -> web.Response:
    # Without a charset, as the real one writes it.
    told = {"Content-Type": "application/json", "Cache-Control": "no-cache, private", **headers}
    return web.Response(body=json.dumps(body).encode(), status=status, headers=told)


async def _send(response: web.StreamResponse, event: Mapping[str, Any]) -> None:
    await response.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")


async def _called(function: Callable[[], T]) -> T:
    return function()


async def _version(request: web.Request) -> web.Response:
    return _json({"major": "1", "minor": "36", "gitVersion": "v1.36.2"})


async def _healthy(request: web.Request) -> web.Response:
    return web.Response(text="ok")


def _bookmark(version: int) -> dict[str, Any]:
    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"containers": None}, "status": {}}
    return {"type": "BOOKMARK", "object": pod}


def _completed(pod: Mapping[str, Any]) -> Pod:
    """With what the API server itself fills in."""
    filled = {"kind": "Pod", "apiVersion": "v1", "metadata": {"creationTimestamp": _now()}, "status": {}}
    return merged(filled, pod)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main(arguments: Sequence[str]) -> int:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.apiserver", description=main.__doc__)
    parser.add_argument("--folder", required=True, help="for the kubeconfig and the certificates")
    parser.add_argument("--bind", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("pods", nargs="*", help="JSON files, each a pod or a list of pods")
    options = parser.parse_args(arguments)
    pods: list[Pod] = []
    for name in options.pods:
        read = json.loads(Path(name).read_text())
        pods += read.get("items", [read])
    with ApiServer(pods, folder=options.folder, bind=options.bind) as api:
        print(json.dumps({"url": api.url, "kubeconfig": str(api.kubeconfig_path)}), flush=True)
        for line in sys.stdin:
            print(json.dumps(_commanded(api, line)), flush=True)
    return 0


_COMMANDS = ("add_pod", "modify", "terminate", "delete", "mint_token", "outage", "restore", "cut_watches",
             "forget_history")  # fmt: skip
_ON_A_POD = ("modify", "terminate", "delete", "mint_token")


def _commanded(api: ApiServer, line: str) -> Any:
    """One line: the method's name and its arguments; a pod is named by namespace and name."""
    try:
        name, *rest = json.loads(line)
        assert name in _COMMANDS, f"one of {', '.join(_COMMANDS)}"
        if name in _ON_A_POD:
            namespace, pod, *rest = rest
            rest = [api.store.pods[namespace, pod], *rest]
        return {"done": getattr(api, name)(*rest)}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
