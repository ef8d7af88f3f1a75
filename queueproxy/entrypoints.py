"""Opens the extensions that are installed: entry points of the group `queueproxy.extensions`.

`importlib.metadata` would answer the question in 45 ms, most of it its own import, and nearly every sidecar has none.
So we look ourselves: every `entry_points.txt` beside a package on sys.path that names the group is read by its rules
(a test compares). 1 ms; nothing else of extensions is loaded where there are none.

All that are installed are used, ordered by name. QUEUEPROXY_EXTENSIONS says otherwise: `off`, or a list of names in
their order, outermost first. What cannot be used ends the start, because an extension that vanishes without a word may
be the one that keeps strangers out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import asyncio

    from queueproxy.config import Config
    from queueproxy.extensions import Setup
    from queueproxy.log import Log
    from queueproxy.proxy.chain import Link
    from queueproxy.proxy.plane import Plane

GROUP: Final = "queueproxy.extensions"
OFF: Final = "off"
_SUFFIXES: Final = (".dist-info", ".egg-info")
_PIECE: Final = 1 << 15  # bytes; real files have some hundred
_REMEDY: Final = "Repair or uninstall it, or start with QUEUEPROXY_EXTENSIONS=off or with a list of the others."


class ExtensionFailed(Exception):
    """An extension cannot be used. fields: for the log, beside the message."""

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.fields = fields

    def tell(self, log: Log) -> int:
        """The last words of a process; its exit code."""
        log.emergency(str(self), **self.fields)
        log.close()
        return 1


class EntryPoint(NamedTuple):
    """One line of an entry_points.txt. value: module:attribute. distribution: name and version of who installed it."""

    name: str
    value: str
    distribution: str


def extend(plane: Plane, config: Config, loop: asyncio.AbstractEventLoop, log: Log) -> Callable[[], None]:
    """Makes the extensions and puts them into the path of requests. Returns what ends them, after the last request."""
    points = [] if config.extensions.strip().lower() == OFF else chosen(installed(sys.path), config.extensions)
    if not points:
        return lambda: None
    from queueproxy.extensions import Setup
    from queueproxy.proxy.extended import extend

    serving = config.serving

    def setup(name: str) -> Setup:
        return Setup(
            name, log.with_(extension=name), loop, **serving._asdict(), root_ca=config.root_ca,
            podinfo=config.mounted.podinfo, tokens=config.mounted.tokens,
        )  # fmt: skip

    links = [made(point, setup) for point in points]
    log.info("Extensions are in use", extensions=[f"{point.name} ({point.distribution})" for point in points])
    return extend(plane, links).close


def installed(path: Iterable[str]) -> list[EntryPoint]:
    """All of the group, of each distribution the first one on the path: the one that would be imported."""
    found: list[EntryPoint] = []
    met: list[str] = []  # what stands before the suffix: name and version
    group = GROUP.encode()
    for place in dict.fromkeys(path):
        try:
            names = os.listdir(place or ".")
        except OSError:  # an archive, or nothing
            continue
        for name in names:
            if not name.endswith(_SUFFIXES):
                continue
            title = name.rpartition(".")[0]
            met.append(title)
            try:
                file = os.open(f"{place or '.'}/{name}/entry_points.txt", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # most have none
                continue
            try:
                data = piece = os.read(file, _PIECE)
                while len(piece) == _PIECE:
                    piece = os.read(file, _PIECE)
                    data += piece
            except OSError:  # a directory of that name
                continue
            finally:
                os.close(file)
            if group in data and not any(_key(title) == _key(other) for other in met[:-1]):
                distribution = title.replace("-", " ", 1)
                text = data.decode("utf-8", "replace")
                found += [EntryPoint(*pair, distribution) for pair in entries(text)]
    return found


def _key(title: str) -> str:
    """One name for one distribution, however it is written (PEP 503)."""
    name = title.partition("-")[0].lower().replace("_", "-").replace(".", "-")
    return "-".join(filter(None, name.split("-")))


def entries(text: str) -> list[tuple[str, str]]:
    """(name, module:attribute) of our group, read as importlib.metadata reads it."""
    found: list[tuple[str, str]] = []
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1]
        elif group == GROUP and line and line[0] != "#":
            name, _, value = line.partition("=")
            found.append((name.strip(), value.partition("[")[0].strip()))
    return found


def chosen(points: Sequence[EntryPoint], wanted: str) -> list[EntryPoint]:
    """Those to use, in order. Raises ExtensionFailed when that cannot be said."""
    by_name: dict[str, EntryPoint] = {}
    for point in sorted(points):
        if point.name in by_name:
            raise ExtensionFailed(
                f"Two extensions are named {point.name}", extension=point.name, remedy="Uninstall one of them.",
                error=f"installed by {by_name[point.name].distribution} and by {point.distribution}",
            )  # fmt: skip
        by_name[point.name] = point
    names = list(dict.fromkeys(filter(None, (name.strip() for name in wanted.split(",")))))
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ExtensionFailed(
            f"Extension {missing[0]} is not installed", extension=missing[0],
            error=f"QUEUEPROXY_EXTENSIONS={wanted}, installed: {', '.join(by_name) or 'none'}",
            remedy="Install it, or take it out of QUEUEPROXY_EXTENSIONS.",
        )  # fmt: skip
    return [by_name[name] for name in names] if names else list(by_name.values())


def made(point: EntryPoint, setup: Callable[[str], Setup]) -> Link:
    """Imports and calls what an entry point names. Raises ExtensionFailed, whatever went wrong."""
    from queueproxy.proxy.chain import HOOKS, Link, reason

    try:
        extension = _named(point.value)(setup(point.name))
        link = Link(point.name, extension)
        if not link.hooks:
            raise TypeError(f"{type(extension).__name__} has none of {', '.join(HOOKS)}")
        for hook in link.hooks:
            call = getattr(link, hook)
            if not callable(call):
                raise TypeError(f"{hook} cannot be called: {call!r}")
            if hook != "request" and _is_async(call):
                raise TypeError(f"{hook} may not be async: nothing waits for it")
    except BaseException as error:  # sys.exit of an imported module included
        import traceback

        raise ExtensionFailed(
            f"Extension {point.name} could not be loaded", extension=point.name, distribution=point.distribution,
            entry_point=point.value, error=reason(error), remedy=_REMEDY,
            stacktrace="".join(traceback.format_exception(error)[-8:]),
        ) from error  # fmt: skip
    return link


def _named(value: str) -> Callable[[Setup], object]:
    import importlib

    module, _, attributes = value.partition(":")
    named: object = importlib.import_module(module.strip())
    for attribute in filter(None, attributes.strip().split(".")):
        named = getattr(named, attribute)
    if not callable(named):
        raise TypeError(f"{value} cannot be called, it is {type(named).__name__}")
    return named


def _is_async(call: Callable[..., object]) -> bool:
    import inspect  # asyncio has loaded it

    return inspect.iscoroutinefunction(call)
