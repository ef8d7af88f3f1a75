"""Which extensions are found, which are used and in which order, and what is said when one cannot be."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queueproxy.bench.environment import environment
from queueproxy.config import load
from queueproxy.entrypoints import GROUP, EntryPoint, ExtensionFailed, chosen, entries, extend, installed, made
from queueproxy.extensions import Setup
from queueproxy.proxy.exchange import Exchange
from tests.support.installed import lay
from tests.support.wires import Wires

GOOD = """
from queueproxy.extensions import Extension
class Good(Extension):
    def __init__(self, setup):
        self.setup = setup
    def request(self, request): ...
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory at the front of sys.path; what is imported from it is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("ext_"):
            del sys.modules[name]


def point(name: str, value: str = "m:f", distribution: str = "d 1") -> EntryPoint:
    return EntryPoint(name, value, distribution)


def setup(name: str) -> Setup:
    nothing: Any = None
    return Setup(name, log=nothing, loop=nothing)


# -- finding


def oracle(path: list[str]) -> list[tuple[str, str]]:
    """What importlib.metadata finds on a path."""
    found: dict[str, Any] = {}
    for distribution in importlib.metadata.distributions(path=path):
        found.setdefault(importlib.metadata.Prepared.normalize(distribution.metadata["Name"]), distribution)
    points = [p for d in found.values() for p in d.entry_points if p.group == GROUP]
    return sorted((p.name, p.value.partition("[")[0].strip()) for p in points)


def test_what_importlib_metadata_finds_is_found(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    lay(first, "ext_a", "", {"a": "ext_a:A", "a.b-c": "ext_a.deep:Outer.Inner"})
    lay(first, "Ext_B", "", {"b": "ext_b:f [extra,more]"})
    lay(second, "ext_a", "", {"hidden": "ext_a:A"}, version="2.0")
    lay(second, "ext.b", "", {"hidden too": "ext_b:f"})
    lay(second, "ext_c", "", {"c": " ext_c : C "})
    (second / "ext_d-1.dist-info").mkdir()
    (second / "ext_d-1.dist-info" / "METADATA").write_text("Name: ext_d\n")
    egg = second / "ext_e.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Name: ext_e\n")
    (egg / "entry_points.txt").write_text(
        "# [queueproxy.extensions]\n[console_scripts]\nx = y:z\n\n [queueproxy.extensions] \n# no = no:no\n"
        " e = ext_e:E\n"
        "[queueproxy.extensions.other]\nn = o:o\n"
    )
    path = [str(first), str(tmp_path / "missing"), str(second), str(first)]
    found = installed(path)
    assert sorted((p.name, p.value.replace(" ", "")) for p in found) == [
        (name, value.replace(" ", "")) for name, value in oracle(path)
    ]
    assert {p.name for p in found} == {"a", "a.b-c", "b", "c", "e"}
    assert {p.distribution for p in found} == {"ext_a 1.0", "Ext_B 1.0", "ext_c 1.0", "ext_e"}


def test_what_importlib_metadata_finds_here_is_found() -> None:
    assert sorted((p.name, p.value) for p in installed(sys.path)) == oracle(sys.path)


@pytest.mark.parametrize(
    "text", ["", "\n", "[queueproxy.extensions]", "[other]\na = b:c\n", "a = b:c\n", "[queueproxy"]
)
def test_a_file_without_entries_of_ours_has_none(text: str) -> None:
    assert entries(text) == []


def test_bytes_that_are_no_text_break_nothing(tmp_path: Path) -> None:
    info = tmp_path / "x-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_bytes(b"\xff\xfe\n[queueproxy.extensions]\na = b:c\n")
    (tmp_path / "y-1.dist-info").write_text("a file, not a directory")
    (tmp_path / "z-1.dist-info" / "entry_points.txt").mkdir(parents=True)
    assert installed([str(tmp_path)]) == [EntryPoint("a", "b:c", "x 1")]


def test_a_file_may_be_long(tmp_path: Path) -> None:
    info = tmp_path / "x-1.dist-info"
    info.mkdir()
    scripts = "".join(f"script{number} = module:function{number}\n" for number in range(5_000))
    (info / "entry_points.txt").write_text(f"[console_scripts]\n{scripts}[queueproxy.extensions]\na = b:c\n")
    assert installed([str(tmp_path)]) == [EntryPoint("a", "b:c", "x 1")]


@pytest.mark.slow
def test_nothing_of_importlib_metadata_is_loaded_and_nothing_of_ours() -> None:
    program = (
        "import sys; from queueproxy.entrypoints import installed, chosen; import queueproxy.app\n"
        "assert not chosen(installed(sys.path), '')\n"
        "unwanted = 'importlib.metadata', 'queueproxy.extensions', 'queueproxy.proxy.extended'\n"
        "print([module for module in unwanted if module in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "[]", run.stderr


# -- choosing


@pytest.mark.parametrize(
    ("wanted", "used"),
    [("", "a b c"), ("b", "b"), ("c,a", "c a"), (" c , a ,, c", "c a"), (",", "a b c")],
    ids=["all by name", "one", "in that order", "blanks and repeats", "nothing said"],
)
def test_all_are_used_or_those_that_are_named_in_their_order(wanted: str, used: str) -> None:
    assert [p.name for p in chosen([point("b"), point("c"), point("a")], wanted)] == used.split()


def test_one_that_is_named_and_missing_ends_the_start() -> None:
    with pytest.raises(ExtensionFailed, match="Extension x is not installed") as failed:
        chosen([point("a"), point("b")], "a,x")
    assert failed.value.fields["error"] == "QUEUEPROXY_EXTENSIONS=a,x, installed: a, b"


def test_two_of_one_name_end_the_start() -> None:
    with pytest.raises(ExtensionFailed, match="Two extensions are named a") as failed:
        chosen([point("a", distribution="x 1"), point("a", distribution="y 2")], "")
    assert failed.value.fields["error"] == "installed by x 1 and by y 2"


# -- loading


BROKEN = {
    "no module": ("ext_none:A", "", "ModuleNotFoundError: No module named 'ext_none'"),
    "no attribute": ("ext_m:A", "", "AttributeError: module 'ext_m' has no attribute 'A'"),
    "no attribute named": ("ext_m", "", "TypeError: ext_m cannot be called, it is module"),
    "syntax": ("ext_m:A", "def", "SyntaxError: invalid syntax (ext_m.py, line 1)"),
    "exit": ("ext_m:A", "raise SystemExit(0)", "SystemExit: 0"),
    "not callable": ("ext_m:A", "A = 7", "TypeError: ext_m:A cannot be called, it is int"),
    "wrong arguments": ("ext_m:A", "def A(): ...", "TypeError: A() takes 0 positional arguments but 1 was given"),
    "raises": ("ext_m:A", "def A(setup): raise OSError('no keys')", "OSError: no keys"),
    "nothing made": ("ext_m:A", "def A(setup): ...", "TypeError: NoneType has none of request, response, finished"),
    "hook is data": (
        "ext_m:A", "class A:\n def __init__(self, s): self.request = 7", "TypeError: request cannot be called: 7",
    ),
    "async response": (
        "ext_m:A", "class A:\n def __init__(self, s): ...\n async def response(self, a, b): ...",
        "TypeError: response may not be async: nothing waits for it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("value", "source", "error"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_used_is_told_with_its_reason_and_what_to_do(
    value: str, source: str, error: str, place: Path
) -> None:
    (place / "ext_m.py").write_text(source)
    with pytest.raises(ExtensionFailed, match="Extension x could not be loaded") as failed:
        made(point("x", value, "dist 1.0"), setup)
    fields = failed.value.fields
    assert fields["error"] == error and "QUEUEPROXY_EXTENSIONS=off" in str(fields["remedy"])
    assert (fields["extension"], fields["distribution"], fields["entry_point"]) == ("x", "dist 1.0", value)


def test_an_attribute_may_be_deep_and_anything_that_can_be_called(place: Path) -> None:
    (place / "ext_m.py").write_text(GOOD + "class Outer:\n    make = staticmethod(lambda setup: Good(setup))\n")
    link = made(point("x", "ext_m:Outer.make"), setup)
    assert link.name == "x" and link.hooks == ["request"]


class Log:
    """Of the process."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []
        self.closed = False

    def info(self, message: str, /, **fields: object) -> None:
        self.lines.append(("info", message, fields))

    def emergency(self, message: str, /, **fields: object) -> None:
        self.lines.append(("emergency", message, fields))

    def with_(self, **fields: object) -> Log:
        self.lines.append(("with", "", fields))
        return self

    def close(self) -> None:
        self.closed = True


def config(**more: str) -> Any:
    return load(environment(1, 2) | more)


def test_all_of_it_is_made_and_put_into_the_path(place: Path) -> None:
    lay(place, "ext_good", GOOD + "    def close(self): self.setup.log.info('closed')\n", {"good": "ext_good:Good"})
    log: Any = Log()
    with Wires() as wires:
        loop: Any = wires.loop
        close = extend(wires.plane, config(QUEUEPROXY_PODINFO="/p", ROOT_CA="ca", QUEUEPROXY_TOKENS="/t"), loop, log)
        assert wires.plane.exchange is not Exchange
        assert ("info", "Extensions are in use", {"extensions": ["good (ext_good 1.0)"]}) in log.lines
        (link,) = wires.plane.exchange.chain.links  # type: ignore[attr-defined]
        seen: Setup = link.request.__self__.setup
        assert seen == Setup(
            "good", log, loop, "bench", "bench", "bench", "bench-00001", "bench-00001-deployment-0",
            seen.pod_ip, "ca", "/p", "/t",
        )  # fmt: skip
        assert ("with", "", {"extension": "good"}) in log.lines
        assert wires.recorder.extension_failures == {("good", "request"): 0}
        close()
        assert log.lines[-1][1] == "closed"


@pytest.mark.parametrize("off", ["off", " OFF "])
def test_off_means_that_nobody_even_looks(off: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queueproxy.entrypoints.installed", None)
    log: Any = Log()
    with Wires() as wires:
        loop: Any = wires.loop
        extend(wires.plane, config(QUEUEPROXY_EXTENSIONS=off), loop, log)()
        assert wires.plane.exchange is Exchange and log.lines == []


def test_the_last_words_are_for_the_log() -> None:
    log: Any = Log()
    assert ExtensionFailed("it broke", extension="x").tell(log) == 1
    assert log.lines == [("emergency", "it broke", {"extension": "x"})] and log.closed
