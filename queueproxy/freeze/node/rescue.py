"""Runs the thaw of a whole node without a freezer: everything its journal names, and everything that is found frozen.

For when all else has failed, so it is blocking where it can be and believes little: a running freezer is asked first,
because it knows best; then each journal record is undone as its successor would; then the kubepods directories are
walked for containers that are frozen all the same. Those may be paused by a runtime on somebody's wish, so they are
thawed only when forced. Nothing is removed but records of what is confirmed running (FZ-094).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, TextIO

from queueproxy.clock import monotonic
from queueproxy.freeze.node.cgroup import NotACgroup, Outcome, open_freezer, run
from queueproxy.freeze.node.config import Address
from queueproxy.freeze.node.journal import Journal, JournalError, Unreadable
from queueproxy.freeze.node.locate import Tree
from queueproxy.freeze.node.mover import Moved, PodMover
from queueproxy.freeze.node.record import Record
from queueproxy.freeze.node.status import NoFreezer, Operator
from queueproxy.freeze.vocabulary import Rung

__all__ = ["Place", "Rescued", "rescue"]

_THAW_WITHIN = 5.0  # seconds for one pod; the mover gives up after two
_ASKED_WITHIN = 15.0  # seconds for a running freezer to thaw everybody at its pace (FZ-095)
_LOOK_EVERY = 0.05


class Place(NamedTuple):
    """Where a node's freezer lives."""

    operators: Address
    journal: str
    cgroups: str
    kubepods: tuple[str, ...]
    proc: str = "/proc"


class Rescued(NamedTuple):
    """What was found, what became of it, and whether it is still frozen."""

    name: str
    found: str
    did: str
    frozen: bool = False


def rescue(place: Place, out: TextIO, *, as_json: bool, force: bool) -> int:
    """How many are still frozen; one line per item that needed anything."""
    found = _ask_the_freezer(place)
    if found and not force:  # it knows best, and what it does not know of is not its
        return _said(found, out, as_json=as_json)
    try:
        tree = Tree.open(under=place.cgroups, roots=place.kubepods, proc=place.proc)
    except (OSError, NotACgroup) as error:
        found.append(Rescued(place.cgroups, "cannot be looked at", str(error), frozen=True))
    else:
        try:
            found += asyncio.run(_undo_journal(place, tree))
            found += _thaw_leftovers(tree, force=force)
        finally:
            tree.close()
    return _said(found, out, as_json=as_json)


def _said(found: list[Rescued], out: TextIO, *, as_json: bool) -> int:
    for item in found:
        if as_json:
            out.write(json.dumps({"event": "rescued", **item._asdict()}) + "\n")
        else:
            out.write(f"{item.name}: {item.found}: {item.did}\n")
    return sum(item.frozen for item in found)


def _ask_the_freezer(place: Place) -> list[Rescued]:
    """What a running freezer made of it; nothing when there is none."""
    operator, name = Operator(place.operators), f"freezer at {place.operators}"
    try:
        operator.get("/v1/pods")
    except NoFreezer:
        return []
    try:
        operator.post("/v1/thaw-all")
        until = monotonic() + _ASKED_WITHIN
        while asleep := sum(pod["state"] != "running" for pod in operator.get("/v1/pods")["pods"]):
            if monotonic() >= until:
                return [Rescued(name, "running", f"asked to thaw everybody; {asleep} are not running", frozen=True)]
            time.sleep(_LOOK_EVERY)
    except (NoFreezer, KeyError, TypeError) as error:
        return [Rescued(name, "running", f"could not be asked: {error}", frozen=True)]
    return [Rescued(name, "running", "thawed everybody")]


async def _undo_journal(place: Place, tree: Tree) -> list[Rescued]:
    try:
        journal = Journal(place.journal, create=False)
    except FileNotFoundError:
        return []
    except (OSError, JournalError) as error:
        return [Rescued(place.journal, "cannot be read", str(error))]
    with journal:
        return [await _undo(record, journal, tree) for record in journal.records()]


async def _undo(record: Record | Unreadable, journal: Journal, tree: Tree) -> Rescued:
    unreadable = isinstance(record, Unreadable)
    name = record.uid if isinstance(record, Unreadable) else f"{record.namespace}/{record.name}"
    what = f"an unreadable record ({record.why})" if isinstance(record, Unreadable) else "in the journal"
    if record.held is None:
        return Rescued(name, what, "nothing to thaw")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Moved] = loop.create_future()
    containers = () if isinstance(record, Unreadable) else record.containers
    qos = "burstable" if isinstance(record, Unreadable) else record.qos
    try:
        mover = PodMover(loop, tree, containers, record.uid, qos, adopt=record.held)
    except (OSError, ValueError, NotACgroup) as error:
        return Rescued(name, what, f"could not be adopted: {error}", frozen=True)
    try:
        was = mover.seen()
        mover.move(Rung.RUNNING, lambda moved: None if done.done() else done.set_result(moved))
        async with asyncio.timeout(_THAW_WITHIN):
            moved = await done
    except TimeoutError:
        return Rescued(name, what, "did not thaw", frozen=True)
    finally:
        mover.close()
    if moved.rung is not Rung.RUNNING and not moved.gone:
        return Rescued(name, what, f"could not be thawed: {moved.detail}", frozen=True)
    if unreadable or not getattr(record, "ended", ()):  # a pod that is ending must stay remembered as such
        journal.remove(record.uid)
    return Rescued(name, what, "gone" if moved.gone else "thawed" if was else "was running")


def _thaw_leftovers(tree: Tree, *, force: bool) -> Iterator[Rescued]:
    for top in tree.found():
        for path, folders, _ in os.walk(top):
            folders.sort()
            try:
                freezer = open_freezer(path)
            except (OSError, NotACgroup):
                continue
            with suppress(OSError):
                if not freezer.observe().wanted_frozen:
                    freezer.close()
                    continue
            try:
                if not force:
                    yield Rescued(path, "frozen, and in no journal", "left alone: --force thaws it", frozen=True)
                    continue
                transition = freezer.thaw(force=True)
                outcome = run(transition)
                thawed = outcome in (Outcome.THAWED, Outcome.GONE)
                did = "thawed" if thawed else f"could not be thawed: {transition.detail}"
                yield Rescued(path, "frozen, and in no journal", did, frozen=not thawed)
            finally:
                freezer.close()
