"""Opens the way to the API server: raw JSON calls over the official client's transport.

`kubernetes.aio` brings configuration (a pod's own service account with its rotating token, or a kubeconfig with
whatever plug-in it names), TLS and connections. Its models are left alone: a pod of 15 KB as model objects costs ten
times what its dictionary costs, and every field we read is a dictionary's anyway. Nothing here is imported before the
first call, and that import (half a second) happens in a thread, because thawing goes on meanwhile.

Whatever goes wrong is one `ApiError`. Nothing is retried here: the callers know how patient they are. After a 401 the
client is thrown away, so that the next call reads the configuration again.
"""

import asyncio
import importlib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

__all__ = ["ApiError", "Cluster"]

_OPEN_WITHIN: Final = 30.0  # seconds for the import and a kubeconfig's plug-in
_SAID_MAX: Final = 200  # characters of an error's text


class ApiError(Exception):
    """A call that did not work. `status` is 0 when there was no answer."""

    def __init__(self, status: int, detail: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {detail}" if status else detail)
        self.status = status
        self.retry_after = retry_after


class Cluster:
    """One API server. `kubeconfig`: a file; empty means the pod's own service account, else the usual places."""

    def __init__(self, kubeconfig: str = "") -> None:
        self._kubeconfig = kubeconfig
        self._opening = asyncio.Lock()
        self._client: Any = None

    def __repr__(self) -> str:
        return f"<Cluster {self._client.configuration.host if self._client else 'not opened'}>"

    async def get(self, path: str, query: Mapping[str, str], within: float) -> bytes:
        async with self._call("GET", path, query, None, within) as response:
            return await response.content.read()  # type: ignore[no-any-return]

    async def post(self, path: str, body: Mapping[str, object], within: float) -> dict[str, object]:
        """The answer's object; something else is an error."""
        async with self._call("POST", path, {}, body, within) as response:
            answer = json.loads(await response.content.read())
            if not isinstance(answer, dict):
                raise ValueError("the answer is not an object")
            return answer

    async def lines(self, path: str, query: Mapping[str, str], silence: float, within: float) -> AsyncGenerator[bytes]:
        """First an empty line when the server has agreed, then each line of a watch. Ends when the server ends it;
        an error when nothing comes for `silence` seconds, or when it is not over `within` so many. Close it."""
        async with self._call("GET", path, query, None, within) as response:
            yield b""
            while True:
                async with asyncio.timeout(silence):
                    line = await response.content.readline()
                if not line:
                    return
                yield line

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
            await asyncio.sleep(0)  # the transports end at the next turn

    @asynccontextmanager
    async def _call(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, object] | None, within: float
    ) -> AsyncIterator[Any]:
        """The open answer to a call that was accepted."""
        try:
            async with asyncio.timeout(_OPEN_WITHIN):  # not the call's time: an import on a busy node takes seconds
                client = await self._opened()
            async with asyncio.timeout(within):
                request = await client.param_serialize(
                    method,
                    path,
                    query_params=list(query.items()),
                    header_params={"Accept": "application/json"},
                    body=body,
                    auth_settings=["BearerToken"],
                )
                answer = await client.call_api(*request, _request_timeout=within)
                response = answer.response
                try:
                    if response.status >= 400:
                        raise await self._refusal(response)
                    yield response
                finally:
                    _leave(response)
        except ApiError:
            raise
        except Exception as error:
            # The transport's, TLS's, the plug-in's, the kubeconfig's: all of them mean that there is no answer.
            raise ApiError(0, f"{type(error).__name__}: {error}"[:_SAID_MAX].rstrip(": ")) from error

    async def _refusal(self, response: Any) -> ApiError:
        if response.status == 401:
            await self.close()
        said = (await response.content.read(4096)).decode("utf-8", "replace")
        try:
            said = str(json.loads(said)["message"])
        except (ValueError, KeyError, TypeError):
            pass
        wait = response.headers.get("Retry-After", "")
        return ApiError(response.status, said[:_SAID_MAX], float(wait) if wait.isascii() and wait.isdigit() else None)

    async def _opened(self) -> Any:
        async with self._opening:
            if self._client is None:
                client, config = await asyncio.to_thread(_modules)
                settings = client.Configuration()
                if self._kubeconfig:
                    await config.load_kube_config(self._kubeconfig, client_configuration=settings, persist_config=False)
                elif "KUBERNETES_SERVICE_HOST" in os.environ:
                    config.load_incluster_config(client_configuration=settings)
                else:
                    await config.load_kube_config(client_configuration=settings, persist_config=False)
                self._client = client.ApiClient(settings)
                self._client.user_agent = "queueproxy-freezer"
            return self._client


def _leave(response: Any) -> None:
    """Ends an answer that was not read to its end, without waiting for a server that may be gone to say goodbye."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.release()


def _modules() -> tuple[Any, Any]:
    return importlib.import_module("kubernetes.aio.client"), importlib.import_module("kubernetes.aio.config")
