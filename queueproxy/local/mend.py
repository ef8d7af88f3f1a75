"""Runs the repair of what a dead run left: thaws its app, ends it when asked to, removes its cgroups and its record.

Three callers: the guardian (at once, and it ends the app), the next `queueproxy run` (thaws), `queueproxy thaw-all`
(thaws; `--stop` ends). Blocking code, no event loop: it must work when everything else has failed. Touches only
cgroups that carry a run's name and processes that the record names by pid and start time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TextIO

from queueproxy.clock import monotonic
from queueproxy.freeze.node.cgroup import Freezer, NotACgroup, Outcome, open_freezer, run
from queueproxy.freeze.node.throttle import CpuThrottle, Squeeze
from queueproxy.local import procfs
from queueproxy.local.journal import NAME, Journal, Record, open_journals, owner_lives
from queueproxy.local.placement import leftovers, read_hierarchy, remove_cgroup
from queueproxy.local.stopper import SessionStopper

__all__ = ["Mended", "mend", "mend_all", "thaw_all"]

STOP_WITHIN = 10.0  # what Kubernetes and docker give at least; SIGKILL after it
_LOOK_EVERY = 0.05


@dataclass(frozen=True, slots=True)
class Mended:
    """What was found and what became of it. `frozen`: something of it is still not running, and should be."""

    name: str
    found: str
    did: str
    frozen: bool = False
    pid: int | None = None


def mend(record: Record, journal: Journal | None, *, stop: bool) -> Mended:
    """Repair one run whose owner is dead. The record goes when nothing of the run is left."""
    stopper = _session(record)
    freezer = _freezer(record.freezer)
    done: list[str] = []
    try:
        was = _what_is(record, freezer, stopper)
        frozen = not _set_running(record, freezer, stopper, done)
        if stop and not frozen:
            _end(freezer, stopper, done)
        alive = _alive(freezer, stopper)
    finally:
        if freezer is not None:
            freezer.close()
    if not alive:
        left = [path for path in record.cgroups if not remove_cgroup(path)]
        if left:
            done.append("could not remove " + " ".join(left))
        else:
            if record.cgroups:
                done.append("removed its cgroups")
            if journal is not None:
                journal.remove(record.name)
    pid = record.app.pid if record.app is not None and alive else None
    if pid is not None and not stop:
        done.append(f"the app still runs without a proxy (pid {pid}; `queueproxy thaw-all --stop` ends it)")
    return Mended(record.name, was, ", ".join(done) or "nothing to do", frozen, pid)


def mend_all(journals: list[Journal], *, force: bool, stop: bool) -> list[Mended]:
    """Repair every run whose owner is dead (with `force`, thaw the living ones too), then every cgroup that only its
    name tells."""
    found: list[Mended] = []
    known: set[str] = set()
    here = procfs.pid_namespace()
    boot = procfs.boot_id()
    for journal in journals:
        for record in journal.records():
            if isinstance(record, tuple):
                found.append(Mended(record[0], "unreadable record", record[1]))
                continue
            known.add(record.name)
            if record.boot != boot:
                journal.remove(record.name)
                found.append(Mended(record.name, "from before the last boot", "removed the record"))
            elif record.pids != here:
                found.append(Mended(record.name, "in another pid namespace", "left alone: run thaw-all there"))
            elif owner_lives(record):
                found.append(_thaw_living(record) if force else Mended(record.name, "alive", "left alone"))
            else:
                found.append(mend(record, journal, stop=stop))
    found.extend(_mend_nameless(known, force=force))
    return found


def thaw_all(uid: int, environ: Mapping[str, str], *, as_json: bool, force: bool, stop: bool, out: TextIO) -> int:
    """The subcommand: mends, reports per item; 0 when nothing is left frozen."""
    journals = open_journals(uid, environ)
    try:
        found = mend_all(journals, force=force, stop=stop)
    finally:
        for journal in journals:
            journal.close()
    frozen = sum(item.frozen for item in found)
    if as_json:
        for item in found:
            out.write(json.dumps({"event": "mended", **asdict(item)}) + "\n")
        out.write(json.dumps({"event": "thaw-all", "items": len(found), "frozen": frozen}) + "\n")
    else:
        for item in found:
            out.write(f"{item.name}: {item.found}: {item.did}\n")
        out.write("nothing is left frozen\n" if not frozen else f"{frozen} still frozen\n")
    return 1 if frozen else 0


def _mend_nameless(known: set[str], *, force: bool) -> list[Mended]:
    """Cgroups no record speaks of: thawed, and removed when empty; their processes are left alone."""
    found: list[Mended] = []
    mounts, _ = read_hierarchy()
    for path, name in leftovers(mounts):
        parts = NAME.fullmatch(name)
        if name in known or parts is None:
            continue
        owner = procfs.identity(int(parts[1]))
        if owner is not None and owner.started == int(parts[2], 16) and not force:
            found.append(Mended(path, "alive, without a record", "left alone"))
            continue
        done: list[str] = []
        freezer = _freezer(path)
        if freezer is None:
            thawed = _lift_quota(path, None, done)
        else:
            try:
                thawed = _thaw(freezer, done)
            finally:
                freezer.close()
        if remove_cgroup(path, 0.0):
            done.append("removed it")
        found.append(Mended(path, "a cgroup without a record", ", ".join(done) or "nothing to do", not thawed))
    return found


def _thaw_living(record: Record) -> Mended:
    stopper, freezer, done = _session(record), _freezer(record.freezer), list[str]()
    try:
        was = _what_is(record, freezer, stopper)
        frozen = not _set_running(record, freezer, stopper, done)
    finally:
        if freezer is not None:
            freezer.close()
    return Mended(record.name, f"alive, {was}", ", ".join(done) or "nothing to do", frozen)


def _session(record: Record) -> SessionStopper | None:
    """The app's session, if its number can still mean the app's: the pid is the app's own, or nobody's."""
    if record.app is None:
        return None
    now = procfs.read_stat(record.app.pid)
    if now is not None and now.started != record.app.started:
        return None
    return SessionStopper(record.app.pid)


def _freezer(path: str | None) -> Freezer | None:
    if path is None:
        return None
    try:
        return open_freezer(path)
    except (FileNotFoundError, NotACgroup):
        return None


def _what_is(record: Record, freezer: Freezer | None, stopper: SessionStopper | None) -> str:
    if freezer is not None:
        seen = freezer.observe()
        return "frozen" if seen.wanted_frozen or seen.frozen else "running" if seen.populated else "ended"
    if stopper is None:
        return "ended"
    living = procfs.in_session(stopper.session)
    return "ended" if not living else "stopped" if any(one.state == procfs.STOPPED for one in living) else "running"


def _set_running(record: Record, freezer: Freezer | None, stopper: SessionStopper | None, done: list[str]) -> bool:
    """CPU first, then the thaw (FZ-083)."""
    if record.cpu is not None:
        _lift_quota(record.cpu, record.cpu_before, done)
    if freezer is not None:
        return _thaw(freezer, done)
    if stopper is None or record.mechanism != "signal":
        return True
    outcome = run(stopper.thaw(force=True))
    if outcome is Outcome.THAWED:
        done.append("continued its processes")
    return outcome in (Outcome.THAWED, Outcome.GONE)


def _thaw(freezer: Freezer, done: list[str]) -> bool:
    frozen = freezer.observe()
    transition = freezer.thaw(force=True)
    outcome = run(transition)
    if outcome is Outcome.THAWED and frozen.wanted_frozen:
        done.append("thawed")
    elif outcome not in (Outcome.THAWED, Outcome.GONE):
        done.append(f"could not thaw: {transition.detail}")
    return outcome in (Outcome.THAWED, Outcome.GONE)


def _lift_quota(path: str, before: str | None, done: list[str]) -> bool:
    """Put the CPU limit back; a cgroup of ours had none when it was made."""
    try:
        throttle = CpuThrottle.open(path, previous=before or "max 100000")
    except (FileNotFoundError, NotACgroup):
        return True
    try:
        present = throttle.read()
        outcome = throttle.restore()
        if outcome is Squeeze.RESTORED and present is not None and present.quota_us is not None:
            done.append("restored its CPU")
        elif outcome is Squeeze.FAILED:
            done.append(f"could not restore its CPU: {throttle.detail}")
        return outcome is not Squeeze.FAILED
    finally:
        throttle.close()


def _alive(freezer: Freezer | None, stopper: SessionStopper | None) -> bool:
    if freezer is not None and freezer.observe().populated:
        return True
    return stopper is not None and bool(stopper.pids())


def _end(freezer: Freezer | None, stopper: SessionStopper | None, done: list[str]) -> None:
    """SIGTERM to the app's first process, SIGKILL to all of it when that was not enough."""
    if not _alive(freezer, stopper):
        return
    if stopper is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stopper.session, signal.SIGTERM)
        if _ended_within(STOP_WITHIN, freezer, stopper):
            done.append("ended the app")
            return
    if freezer is not None:
        freezer.kill()
    if stopper is not None:
        stopper.kill()
    _ended_within(STOP_WITHIN, freezer, stopper)
    done.append("killed the app")


def _ended_within(within: float, freezer: Freezer | None, stopper: SessionStopper | None) -> bool:
    deadline = monotonic() + within
    while _alive(freezer, stopper):
        if monotonic() >= deadline:
            return False
        time.sleep(_LOOK_EVERY)
    return True
