"""Opens the request log: template, names of the revision and the way out come together here."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from queueproxy.codec.headers import remember_for_log
from queueproxy.log import LineWriter, Log
from queueproxy.requestlog.compiler import made
from queueproxy.requestlog.inputs import Revision
from queueproxy.requestlog.parser import BadTemplate
from queueproxy.requestlog.recorder import Counts, RequestLog

STDOUT: Final = 1


class Wanted(Protocol):
    """The request log's part of the configuration."""

    @property
    def template(self) -> str: ...
    @property
    def probes(self) -> bool: ...


class Serving(Protocol):
    """The names of the revision and its pod."""

    @property
    def namespace(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def configuration(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def pod(self) -> str: ...
    @property
    def pod_ip(self) -> str: ...


def request_log(
    wanted: Wanted, serving: Serving, loop: asyncio.AbstractEventLoop, log: Log, counts: Counts
) -> RequestLog | None:
    """None for an empty template, and for one that is none: said once, and the proxy goes on without (contract 8.1)."""
    template = wanted.template
    if not template:
        return None
    revision = Revision(
        name=serving.revision,
        namespace=serving.namespace,
        service=serving.service,
        configuration=serving.configuration,
        pod=serving.pod,
        pod_ip=serving.pod_ip,
    )
    try:
        # A line each, or readers could not tell them apart.
        line, render = made(template if template.endswith("\n") else template + "\n", revision)
    except BadTemplate as error:
        log.error("Error setting up request logger. Request logs will be unavailable.", error=str(error))
        return None
    remember_for_log()
    writer = log.writer if log.writer.fd == STDOUT else LineWriter(STDOUT)  # one writer for each descriptor
    return RequestLog(
        render, revision, line=line, probes=wanted.probes, writer=writer, loop=loop, log=log, counts=counts
    )
