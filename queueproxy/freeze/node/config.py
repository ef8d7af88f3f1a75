"""Decodes the freezer's configuration file (TOML) into frozen groups, or says everything that is wrong with it.

Theory of operation. Text and an environment mapping in, `NodeConfig` out; reading the file is the caller's. Every key
is read once by a reader that knows its type and range; what is wrong becomes a sentence with the key's full name and
reading goes on, so one `ConfigError` carries all of them. A key nobody reads is a typing mistake and an error too: a
freezer that silently ignores `deny = [...]` spelled wrongly would be worse than one that does not start. What is
allowed but deserves a second look becomes a sentence in `notes`, for the log.

`[defaults]` has the spelling of the annotations (design 6) without their prefix, and is read by the same code.
"""

import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar, cast

from queueproxy.env import ConfigError
from queueproxy.freeze.annotations import DEFAULTS, PREFIX, PodPolicy, parse, parse_duration
from queueproxy.freeze.node.inventory import Rules
from queueproxy.freeze.node.limits import Rate, Rates
from queueproxy.freeze.node.naming import ROOTS, roots_below

__all__ = ["Address", "ConfigError", "Identity", "Leases", "Listen", "NodeConfig", "load", "parse_address"]

_T = TypeVar("_T")
_PORT: Final = 9696  # where the old daemon was published on each node (design 5)
_OPERATORS_PORT: Final = 9697
_LEVELS: Final = ("debug", "info", "warn", "error")
_RULES: Final = Rules("")


class Address(NamedTuple):
    """Where to listen: `host` and `port`, or the path of a Unix socket."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Listen(NamedTuple):
    """`certificate` and `key` are paths, both or none. `connections`: the most on the sidecars' port (FZ-134)."""

    sidecars: Address
    operators: Address
    certificate: str
    key: str
    connections: int
    per_source: int
    old_protocol: bool


class Leases(NamedTuple):
    """Seconds. `longest` caps what a sidecar asks for; `old` is what a pause of the old protocol is worth (FZ-090)."""

    longest_s: float
    old_s: float


class Identity(NamedTuple):
    """What a token must say, and who may send it."""

    audience: str
    check_peer: bool
    cache_s: float


class NodeConfig(NamedTuple):
    """One freezer. `kubeconfig` "" means from within the cluster; `rules` has the node's name (T-11); `kubepods` are
    relative to each hierarchy mounted at or below `cgroups`."""

    rules: Rules
    listen: Listen
    defaults: PodPolicy
    leases: Leases
    identity: Identity
    rates: Rates
    kubeconfig: str
    cgroups: str
    kubepods: tuple[str, ...]
    proc: str
    journal: str
    drain_s: float
    log_level: str
    notes: tuple[str, ...]


def load(text: str, environ: Mapping[str, str]) -> NodeConfig:
    """Of the file's text; raises ConfigError. Of the environment, NODE_NAME and POD_UID are read (the downward API)."""
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError((f"not TOML: {error}",)) from None
    read = _Reader(said)
    notes: list[str] = []
    config = NodeConfig(
        rules=Rules(
            node=read.text("node", environ.get("NODE_NAME", "")),
            allow=read.names("namespaces.allow", _RULES.allow),
            deny=read.names("namespaces.deny", _RULES.deny),
            own_uid=environ.get("POD_UID", ""),
        ),
        listen=_listen(read, notes),
        defaults=_defaults(read),
        leases=_leases(read),
        identity=Identity(
            audience=read.text("identity.audience", "concurrency-state-hook"),
            check_peer=read.flag("identity.check-peer", True),
            cache_s=read.seconds("identity.cache", 300.0, 0.0, 300.0),
        ),
        rates=Rates(
            *(
                read.rate(f"rates.{name.replace('_', '-')}", rate)
                for name, rate in zip(Rates._fields, Rates(), strict=True)
            )
        ),
        kubeconfig=read.path("kubernetes.kubeconfig", ""),
        cgroups=read.path("cgroups.root", "/sys/fs/cgroup"),
        kubepods=_kubepods(read),
        proc=read.path("cgroups.proc", "/proc"),
        journal=read.path("journal", "/run/queueproxy-freezer"),
        drain_s=read.seconds("drain", 10.0, 0.0, 300.0),
        log_level=read.one_of("log.level", "info", _LEVELS),
        notes=(),
    )
    if not config.rules.node:
        read.wrong.append("node: missing, and NODE_NAME is not in the environment")
    if not config.identity.audience:
        read.wrong.append("identity.audience: empty would accept tokens that are meant for the API server (T-02)")
    if config.identity.check_peer and config.listen.sidecars.path:
        read.wrong.append("identity.check-peer: a Unix socket has no peer address; set it to false")
    if not config.identity.check_peer:
        notes.append("identity.check-peer is off: a token may be used from any address (T-05)")
    read.finish()
    return config._replace(notes=tuple(notes))


def _kubepods(read: "_Reader") -> tuple[str, ...]:
    root = read.path("cgroups.cgroup-root", "")
    found = read.directories("cgroups.kubepods", ROOTS)
    if not root:
        return found
    if found is not ROOTS:
        read.wrong.append("cgroups: cgroup-root says where kubepods is; give one of the two")
    if not _is_relative(root.strip("/") or "kubepods"):
        read.wrong.append(f"cgroups.cgroup-root: {root!r} is not a kubelet's --cgroup-root")
        return ROOTS
    return roots_below(root)


def _listen(read: "_Reader", notes: list[str]) -> Listen:
    listen = Listen(
        sidecars=read.address("listen.sidecars", Address("0.0.0.0", _PORT)),
        operators=read.address("listen.operators", Address("127.0.0.1", _OPERATORS_PORT)),
        certificate=read.path("listen.certificate", ""),
        key=read.path("listen.key", ""),
        connections=read.integer("listen.connections", 1024, 1, 65_535),
        per_source=read.integer("listen.per-source", 8, 1, 65_535),
        old_protocol=read.flag("listen.old-protocol", True),
    )
    plain = read.flag("listen.plain-http", False)
    if bool(listen.certificate) != bool(listen.key):
        read.wrong.append("listen: certificate and key go together")
    elif not listen.certificate and not listen.sidecars.path:
        if plain:
            notes.append("listen.plain-http: tokens cross the node unencrypted (T-07)")
        else:  # FZ-133
            read.wrong.append("listen: give certificate and key, a Unix socket, or say plain-http = true")
    elif plain:
        read.wrong.append("listen: plain-http = true contradicts the certificate or the Unix socket")
    if listen.sidecars == listen.operators and listen.sidecars.port:
        read.wrong.append("listen: sidecars and operators cannot share an address")
    if not listen.operators.path and listen.operators.host not in ("127.0.0.1", "::1", "localhost"):
        notes.append("listen.operators is open to other machines: they can read metrics and pods, but change nothing")
    return listen


def _defaults(read: "_Reader") -> PodPolicy:
    said = {PREFIX + key: value for key, value in read.table("defaults").items() if isinstance(value, str)}
    for key, value in read.table("defaults").items():
        if not isinstance(value, str):
            read.wrong.append(f"defaults.{key}: {value!r} is not text in quotes")
    policy, warnings = parse(said, DEFAULTS)
    read.wrong += [warning.replace(f"annotation {PREFIX}", "defaults.", 1) for warning in warnings]
    return policy


def _leases(read: "_Reader") -> Leases:
    longest = read.seconds("leases.longest", 60.0, 1.0, 60.0)  # a freezer must not be told to trust for longer (T-09)
    return Leases(longest, min(longest, read.seconds("leases.old-protocol", 60.0, 1.0, 60.0)))


class _Reader:
    """One parsed file, what was wrong with it, and what nobody has asked for yet."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = said
        self._unread = {f"{key}.{inner}" if isinstance(value, dict) else key
                        for key, value in said.items()
                        for inner in (value if isinstance(value, dict) else ("",))}  # fmt: skip
        self.wrong: list[str] = []

    def text(self, name: str, default: str) -> str:
        return self._checked(name, default, str, "text in quotes")

    def flag(self, name: str, default: bool) -> bool:
        return self._checked(name, default, bool, "true or false")

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        return int(self._within(name, self._checked(name, default, int, "a whole number"), default, least, most))

    def rate(self, name: str, default: Rate) -> Rate:
        """Calls per second; twice as many at once, which is how the defaults are made too."""
        per_second = self._checked(name, None, (int, float), "a number")
        if per_second is None:
            return default
        per_second = self._within(name, per_second, default.per_second, 0.1, 1e6)
        return Rate(per_second, max(1, round(2 * per_second)))

    def seconds(self, name: str, default: float, least: float, most: float) -> float:
        seconds = self._parsed(name, default, parse_duration)
        return self._within(name, seconds, default, least, most, " seconds")

    def path(self, name: str, default: str) -> str:
        return self._parsed(name, default, _path)

    def address(self, name: str, default: Address) -> Address:
        return self._parsed(name, default, parse_address)

    def one_of(self, name: str, default: str, words: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value in words:
            return value
        self.wrong.append(f"{name}: {value!r} is not one of {', '.join(words)}")
        return default

    def names(self, name: str, default: frozenset[str]) -> frozenset[str]:
        value = self._value(name)
        if value is None:
            return default
        if isinstance(value, list) and all(isinstance(word, str) and word for word in value):
            return frozenset(value)
        self.wrong.append(f"{name}: {value!r} is not a list of names")
        return default

    def directories(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self._value(name)
        if value is None:
            return default
        if isinstance(value, list) and value and all(isinstance(path, str) and _is_relative(path) for path in value):
            return tuple(value)
        self.wrong.append(f"{name}: {value!r} is not a list of directories relative to the mounts")
        return default

    def table(self, name: str) -> dict[str, Any]:
        value = self._said.get(name, {})
        if isinstance(value, dict):
            self._unread -= {f"{name}.{key}" for key in value}
            return value
        return {}

    def finish(self) -> None:
        """Raises when anything was wrong."""
        self.wrong += [f"{name}: no such setting" for name in sorted(self._unread)]
        if self.wrong:
            raise ConfigError(tuple(self.wrong))

    def _value(self, name: str) -> Any:
        self._unread.discard(name)
        room, dot, key = name.rpartition(".")
        said = self._said.get(room, {}) if dot else self._said
        return said.get(key) if isinstance(said, dict) else None

    def _checked(self, name: str, default: _T, kind: type | tuple[type, ...], what: str) -> _T:
        value = self._value(name)
        if value is None:
            return default
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return cast(_T, value)
        self.wrong.append(f"{name}: {value!r} is not {what}")
        return default

    def _parsed(self, name: str, default: _T, parse: Callable[[str], _T]) -> _T:
        value = self.text(name, "")
        if not value:
            return default
        try:
            return parse(value)
        except ValueError as error:
            self.wrong.append(f"{name}: {value!r} is not {error}")
            return default

    def _within(self, name: str, value: float, default: float, least: float, most: float, unit: str = "") -> float:
        if least <= value <= most:
            return value
        self.wrong.append(f"{name}: {value:g} is not between {least:g} and {most:g}{unit}")
        return default


def _path(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError("an absolute path")
    return text


def _is_relative(path: str) -> bool:
    return all(part not in ("", ".", "..") for part in path.split("/")) and "\0" not in path


def parse_address(text: str) -> Address:
    """`host:port`, `[v6]:port`, or `unix:/path`."""
    if text.startswith("unix:/"):
        return Address("", 0, text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535 or not host:
        raise ValueError("an address like 0.0.0.0:9696, [::]:9696 or unix:/run/freezer.sock")
    if (":" in host) != bracketed:
        raise ValueError("an address: an IPv6 host goes into brackets")
    return Address(host[1:-1] if bracketed else host, int(port))
