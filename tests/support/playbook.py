"""A conversation with a pure machine: events in, effects out, compared as a whole and printed as a diff.

    book = Playbook(IdlePolicy(settings))
    book.at(0) >> on.ready()
    book.at(12) >> on.on_deadline() << Look(1, True, None)
    book.run()

`>>` says an event (a method of the machine, called with `now` and the arguments), `<<` an effect it must answer
with. Nothing happens before `run`, which plays all of it, also past the first difference, so that the diff shows
where the two part. Effects of the types in `ignoring` are left out on both sides. Types count: two tuples with
equal fields are not equal effects.
"""

import difflib
from typing import Any

__all__ = ["Event", "Playbook", "on"]


class Event:
    """One call to make: `on.arrived()`, `on.looked(1, None)`."""

    def __init__(self, name: str, args: tuple[object, ...]) -> None:
        self.name = name
        self.args = args

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.args))})"


class _On:
    def __getattr__(self, name: str) -> Any:
        return lambda *args: Event(name, args)


on: Any = _On()


class Playbook:
    """The script for one machine; `run` returns the machine for further questions."""

    def __init__(self, machine: Any, ignoring: tuple[type, ...] = ()) -> None:
        self.machine = machine
        self._ignoring = ignoring
        self._now = 0.0
        self._script: list[tuple[float, Event, list[object]]] = []

    def at(self, now: float) -> "Playbook":
        assert now >= self._now, "time does not go back"
        self._now = now
        return self

    def after(self, seconds: float) -> "Playbook":
        return self.at(self._now + seconds)

    def __rshift__(self, event: Event) -> "Playbook":
        self._script.append((self._now, event, []))
        return self

    def __lshift__(self, effect: object) -> "Playbook":
        self._script[-1][2].append(effect)
        return self

    def run(self) -> Any:
        expected, actual = [], []
        for now, event, effects in self._script:
            line = f"{now:10.3f} >> {event!r}"
            answer = getattr(self.machine, event.name)(now, *event.args)
            expected += [line, *map(_line, effects)]
            actual += [line, *(_line(effect) for effect in answer if not isinstance(effect, self._ignoring))]
        self._script.clear()
        if expected != actual:
            diff = "\n".join(difflib.ndiff(expected, actual))
            raise AssertionError(f"the conversation went otherwise (- expected, + actual):\n{diff}\n{self.machine!r}")
        return self.machine


def _line(effect: object) -> str:
    return f"           << {type(effect).__name__} {effect!r}"
