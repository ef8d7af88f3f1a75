"""Counts sampled call stacks, and writes them as collapsed stacks or as a speedscope file.

A stack is a tuple of code objects, outermost first: taking one must cost little, because it is taken inside what is
being measured. Names are made once, at the end. Different stacks are limited: beyond that they are counted together,
so that a profile costs bounded memory whatever the program does.

Collapsed: `outer;inner;innermost 42`, one stack per line, what flamegraph.pl and most viewers read. Speedscope: the
file format of https://www.speedscope.app, type "sampled", with weights in seconds.
"""

from __future__ import annotations

import json
import sys
from types import CodeType, FrameType
from typing import Final, NamedTuple

DEPTH: Final = 100  # frames; a deeper stack keeps its innermost ones
DISTINCT: Final = 5_000  # stacks; with DEPTH pointers each that is 4 MB at the very worst
OTHERS: Final = "(other stacks)"
SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"

Stack = tuple[CodeType, ...]


class Place(NamedTuple):
    """A function as shown: where it was defined, without the directories that are the same for all."""

    name: str
    file: str
    line: int

    @property
    def label(self) -> str:
        return f"{self.name} ({self.file}:{self.line})".replace(";", ",")


class Samples:
    """add, then collapsed or speedscope. taken: how many were added."""

    __slots__ = ("_counts", "_limit", "taken")

    def __init__(self, limit: int = DISTINCT) -> None:
        self._counts: dict[tuple[str, Stack], int] = {}
        self._limit = limit
        self.taken = 0

    def __repr__(self) -> str:
        return f"<Samples {self.taken} in {len(self._counts)} stacks>"

    def add(self, thread: str, frame: FrameType | None) -> None:
        """The stack that ends in this frame, of the thread of that name ("" where there is only one)."""
        stack: list[CodeType] = []
        while frame is not None and len(stack) < DEPTH:
            stack.append(frame.f_code)
            frame = frame.f_back
        self.taken += 1
        key = (thread, tuple(reversed(stack)))
        if key not in self._counts and len(self._counts) >= self._limit:
            key = (thread, ())
        self._counts[key] = self._counts.get(key, 0) + 1

    def _stacks(self) -> list[tuple[list[Place], int]]:
        """Places and counts, the most frequent first."""
        known: dict[CodeType, Place] = {}
        found: list[tuple[list[Place], int]] = []
        for (thread, stack), count in self._counts.items():
            places = [Place(f"[{thread}]", "thread", 0)] if thread else []
            for code in stack:
                if code not in known:
                    known[code] = Place(code.co_qualname, shortened(code.co_filename), code.co_firstlineno)
                places.append(known[code])
            if not stack:
                places.append(Place(OTHERS, "", 0))
            found.append((places, count))
        return sorted(found, key=lambda each: -each[1])

    def collapsed(self) -> str:
        lines = [f"{';'.join(place.label for place in places)} {count}\n" for places, count in self._stacks()]
        return "".join(lines)

    def speedscope(self, name: str, period: float) -> str:
        """period: seconds that one sample stands for."""
        numbers: dict[Place, int] = {}
        samples: list[list[int]] = []
        weights: list[float] = []
        for places, count in self._stacks():
            samples.append([numbers.setdefault(place, len(numbers)) for place in places])
            weights.append(count * period)
        frames = [{"name": place.name, "file": place.file, "line": place.line} for place in numbers]
        profile = {
            "type": "sampled", "name": name, "unit": "seconds", "startValue": 0, "endValue": sum(weights),
            "samples": samples, "weights": weights,
        }  # fmt: skip
        document = {
            "$schema": SCHEMA, "name": name, "exporter": "queueproxy", "activeProfileIndex": 0,
            "shared": {"frames": frames}, "profiles": [profile],
        }  # fmt: skip
        return json.dumps(document, separators=(",", ":"))


def shortened(file: str) -> str:
    """A file name without the directory it was imported from."""
    roots = [root.rstrip("/") + "/" for root in sys.path if root and file.startswith(root.rstrip("/") + "/")]
    return file[len(max(roots, key=len)) :] if roots else file
