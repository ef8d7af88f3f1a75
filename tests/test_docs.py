"""The documents against the thing: links, make targets, subcommands and flags, metric names."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^(```+|~~~+).*?\n(.*?)^\1", re.M | re.S)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|!\[[^\]]*\]\(([^)\s]+)\)")
# What may stand before our command: a prompt, settings, a way to name the interpreter or the environment.
_COMMAND = re.compile(
    r"^(?:\$ |# )?(?:sudo )?(?:\w+=\S+ )*(?:(?:\.venv/bin/)?python3? -m |(?:\.venv/bin/))?queueproxy\b(.*)"
)
_METRIC = re.compile(r"\b((?:kn_serving|freezer|http_server|http_client)_[a-z0-9_]*[a-z0-9])\b")
# Prometheus adds these to the name that the code spells.
_SUFFIXES = ("_bucket", "_count", "_sum", "_total")


def _text(document: Path) -> str:
    return document.read_text()


def _prose(text: str) -> str:
    return _FENCE.sub("", text)


def _code_lines(text: str) -> list[str]:
    """Lines of fenced blocks and inline spans: where commands are written."""
    lines = [line.strip() for block in _FENCE.finditer(text) for line in block[2].replace("\\\n", " ").splitlines()]
    return lines + [span.strip() for span in _SPAN.findall(_prose(text))]


def _slug(heading: str) -> str:
    plain = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def _anchors(document: Path) -> set[str]:
    text = _prose(_text(document))
    headings = re.findall(r"^#{1,6} +(.*?) *#*$", text, re.M)
    return {_slug(heading) for heading in headings} | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def _in_documents(found: dict[Path, list[str]]) -> list[str]:
    return [f"{document.relative_to(ROOT)}: {item}" for document, items in found.items() for item in items]


def _broken_links(document: Path) -> list[str]:
    broken = []
    for link in (first or second for first, second in _LINK.findall(_prose(_text(document)))):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            broken.append(link)
    return broken


def test_every_relative_link_leads_somewhere() -> None:
    assert _in_documents({document: _broken_links(document) for document in DOCUMENTS}) == []


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.M))
    unknown = {
        document: [
            word
            for line in _code_lines(_text(document))
            if (command := re.match(r"(?:\$ |sudo )?make((?: +[a-z][a-z0-9-]*)+)(?: *#.*)?$", line))
            for word in command[1].split()
            if word not in targets
        ]
        for document in DOCUMENTS
    }
    assert _in_documents(unknown) == []


def test_every_target_that_help_lists_is_phony() -> None:
    makefile = (ROOT / "Makefile").read_text()
    listed = set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.M))
    phony = set(" ".join(re.findall(r"^\.PHONY:(.*)", makefile, re.M)).split())
    assert listed and listed <= phony


@cache
def _help(*words: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "queueproxy", *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, f"queueproxy {' '.join(words)} --help: {run.stderr}"
    return run.stdout + run.stderr


def _commands(document: Path) -> list[list[str]]:
    """The words after `queueproxy`, up to the application's own command line, a pipe or a remark."""
    found = []
    for line in _code_lines(_text(document)):
        command = _COMMAND.match(line)
        if command and (not command[1] or command[1][0] == " "):
            found.append(re.split(r" -- | --$| [|#&>]| \\?$", command[1] + " ")[0].split())
    return found


def _wrong_commands(document: Path) -> list[str]:
    wrong = []
    for words in _commands(document):
        subcommand = words[0] if words and re.fullmatch(r"[a-z][a-z-]*", words[0]) else None
        if subcommand and not re.search(rf"\b{re.escape(subcommand)}\b", _help()):
            wrong.append(f"queueproxy {subcommand}")
            continue
        known = _help(subcommand) if subcommand else _help()
        flags = [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]
        wrong += [
            f"queueproxy {subcommand or ''} {flag}"
            for flag in flags
            if not re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", known)
        ]
    return wrong


@pytest.mark.slow
def test_every_command_in_the_documents_exists() -> None:
    assert _in_documents({document: _wrong_commands(document) for document in DOCUMENTS}) == []


def test_every_metric_in_the_documents_is_in_the_code() -> None:
    source = "\n".join(path.read_text() for path in sorted((ROOT / "queueproxy").rglob("*.py")))

    def spelled(name: str) -> bool:
        forms = {name} | {name.removesuffix(suffix) for suffix in _SUFFIXES}
        # OpenTelemetry's spelling has dots, and its unit becomes a suffix only on export.
        forms |= {form.removesuffix("_seconds").removesuffix("_bytes").replace("_", ".") for form in forms}
        return any(form in source or form.replace("_", ".") in source for form in forms)

    unknown = {
        document: sorted({name for name in _METRIC.findall(_text(document)) if not spelled(name)})
        for document in DOCUMENTS
    }
    assert _in_documents(unknown) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("queueproxy run --port 8080 -- python app.py --reload", ["run", "--port", "8080"]),
        ("$ .venv/bin/queueproxy bench --peer ./go | tee x", ["bench", "--peer", "./go"]),
        ("USER_PORT=1 python3 -m queueproxy serve", ["serve"]),
        ("kubectl -n queueproxy get pods", None),
        ("queueproxy/cli.py", None),
    ],
)
def test_commands_are_recognised_in_documents(tmp_path: Path, line: str, words: list[str] | None) -> None:
    document = tmp_path / "x.md"
    document.write_text(f"# X\n\n```sh\n{line}\n```\n")
    assert _commands(document) == ([] if words is None else [words])


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    document = tmp_path / "x.md"
    document.write_text(
        "# Some *Heading*: here\n[a](x.md) [b](#some-heading-here) [c](y.md) [d](x.md#no) [e](http://x/)"
    )
    assert _broken_links(document) == ["y.md", "x.md#no"]
