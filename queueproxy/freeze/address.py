"""Decodes where the freezer is: HOST_IP and the default port, unless an annotation or an old variable says otherwise.

Theory of operation
-------------------
Stock Knative gives a sidecar its node's address and nothing else, so that is the default (design D7). The annotation
`queueproxy.dev/freezer` overrides it: `http://10.0.0.1:9696`, `http://[fd00::1]:9696`, `unix:/run/freezer.sock`,
or `off`. So does CONCURRENCY_STATE_ENDPOINT of Knative 1.0 to 1.9. `$HOST_IP` and `${HOST_IP}` are expanded, nothing
else is (FZ-004). Hosts are addresses: a name would need a resolver on the way to a thaw.

A value that cannot be used costs one warning. It falls back to the default, except where that would be less than was
asked for: `https` means that the token must not travel in clear, so there is no freezer then.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final, NamedTuple

__all__ = ["ANNOTATION", "PORT", "Address", "where"]

ANNOTATION: Final = "queueproxy.dev/freezer"
PORT: Final = 9696  # the port the daemon of old was published on
_PATH_MAX: Final = 107  # of a Unix socket, unix(7)
_URL: Final = re.compile(r"http://(\[[^\]/]+\]|[^\[\]:/]+)(?::([0-9]{1,5}))?/?")


class Address(NamedTuple):
    """`host` is an address without brackets, or the path of a Unix socket when `port` is 0."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        """For the Host header."""
        if not self.port:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def where(host_ip: str, *overrides: tuple[str, str]) -> tuple[Address | None, list[str]]:
    """The address, and what could not be used. overrides: (name, value) in order of preference; empty ones are none."""
    warnings: list[str] = []
    for name, value in overrides:
        text = value.strip().replace("${HOST_IP}", _bracketed(host_ip)).replace("$HOST_IP", _bracketed(host_ip))
        if not text:
            continue
        if text == "off":
            return None, warnings
        if text.startswith("https:"):
            warnings.append(f"{name}: https is not spoken by this version; freezing is off")
            return None, warnings
        address = _parsed(text)
        if address is not None:
            return address, warnings
        warnings.append(f"{name}: {value[:80]!r} is not http://ADDRESS:PORT, unix:PATH or off; ignored")
    if not host_ip:
        return None, warnings
    default = _at(host_ip.strip("[]"), PORT)
    if default is None:
        warnings.append(f"HOST_IP: {host_ip[:80]!r} is not an address; freezing is off")
    return default, warnings


def _bracketed(host_ip: str) -> str:
    return f"[{host_ip}]" if ":" in host_ip and not host_ip.startswith("[") else host_ip


def _parsed(text: str) -> Address | None:
    if text.startswith("unix:"):
        path = "/" + text.removeprefix("unix:").lstrip("/")
        return Address(path, 0) if 1 < len(path.encode()) <= _PATH_MAX and path.isprintable() else None
    url = _URL.fullmatch(text)
    return _at(url[1].strip("[]"), int(url[2]) if url[2] else PORT) if url is not None else None


def _at(host: str, port: int) -> Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return Address(str(address), port) if 0 < port <= 65535 and "%" not in host else None
