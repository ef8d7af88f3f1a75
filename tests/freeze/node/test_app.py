"""The whole freezer as its users meet it: a real process, real cgroups, the API server's stand-in over TLS."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from queueproxy.freeze.node.losses import SETTLED
from tests.support.apiserver import ApiServer
from tests.support.cgroupfs import real_cgroups, remains, until
from tests.support.freezer_calls import get, old, put
from tests.support.freezer_process import NODE, FreezerProcess, Resident, Sidecar, active, freeze, idle, thaw
from tests.support.kubepods import Node

pytest_plugins = ["tests.support.freezer_fixtures"]  # api, node, freezer: one each for the whole module
pytestmark = [*real_cgroups(""), pytest.mark.xdist_group("freezer")]


class Elder(NamedTuple):
    """A pod whose processes have settled by the time somebody needs that."""

    app: Resident
    began_at: float


@pytest.fixture(scope="module", autouse=True)
def elder(freezer: FreezerProcess) -> Elder:
    """There from the first test on."""
    return Elder(freezer.add_pod(), time.monotonic())


@pytest.fixture
def asleep(freezer: FreezerProcess) -> tuple[Resident, Sidecar, str]:
    """A pod that was put to sleep by its sidecar, generation 1."""
    app = freezer.add_pod()
    sidecar, secret = freezer.sidecar(app)
    assert freeze(sidecar, app, secret, 1).json["state"] == "frozen" and freezer.frozen(app)
    return app, sidecar, secret


# -- sleep and wake


@pytest.mark.fz("FZ-060", "FZ-062", "FZ-102", "FZ-120")
def test_a_pod_sleeps_and_wakes_at_its_sidecars_wish(
    freezer: FreezerProcess, asleep: tuple[Resident, Sidecar, str]
) -> None:
    app, sidecar, secret = asleep
    assert app.work is not None
    app.work.stands_still()
    awake = thaw(sidecar, app, secret, 2)
    assert (awake.status, awake.json["state"], awake.json["mechanism"]) == (200, "running", "cgroup2")
    assert not freezer.frozen(app)
    app.work.goes_on()
    kinds: list[str] = []

    def is_told() -> bool:
        """A moment after the answer, which does not wait for that."""
        kinds[:] = [change["kind"] for change in freezer.pods()[app.uid]["changes"]]
        return len(kinds) == 4

    until(is_told, "its changes are told")
    assert kinds == ["thawed", "active", "frozen", "idle"]
    told = freezer.pods()[app.uid]
    assert (told["state"], told["wakes"], told["connected"], told["mode"]) == ("running", 1, True, "freeze")
    assert app.token not in freezer.said and secret not in freezer.said


@pytest.mark.fz("FZ-061", "D-26")
def test_the_same_generation_gets_the_same_answer_and_an_older_one_a_conflict(
    freezer: FreezerProcess, asleep: tuple[Resident, Sidecar, str]
) -> None:
    app, sidecar, secret = asleep
    assert freeze(sidecar, app, secret, 1).json["state"] == "frozen"
    late = thaw(sidecar, app, secret, 0)
    assert (late.status, late.kind, late.json["view"]["state"]) == (409, "stale-generation", "frozen")
    assert freezer.frozen(app)


@pytest.mark.fz("FZ-090")
def test_a_sleep_that_is_not_renewed_ends_by_itself(freezer: FreezerProcess) -> None:
    app = freezer.add_pod()
    sidecar, secret = freezer.sidecar(app)
    freeze(sidecar, app, secret, 1, lease=0.5)
    for _ in range(3):
        freezer.until(lambda: freezer.pods()[app.uid]["lease_s"] < 0.3, "the lease runs")
        assert freeze(sidecar, app, secret, 1, lease=0.5).json["lease_s"] > 0.4
    freezer.until(lambda: not freezer.frozen(app), "thawed when the lease is over", within=1.5)
    freezer.until(lambda: freezer.pods()[app.uid]["state"] == "running", "and it knows")
    assert freezer.pods()[app.uid]["why"] == "lease over"


@pytest.mark.fz("FZ-090")
def test_a_sidecar_that_dies_does_not_leave_its_app_asleep(freezer: FreezerProcess) -> None:
    app = freezer.add_pod()
    sidecar, secret = freezer.sidecar(app)
    freeze(sidecar, app, secret, 1, lease=0.4)
    sidecar.close()
    freezer.until(lambda: not freezer.frozen(app), "thawed", within=1.4)


def test_a_lease_is_never_longer_than_the_freezer_allows(freezer: FreezerProcess) -> None:
    app = freezer.add_pod()
    sidecar, secret = freezer.sidecar(app)
    assert freeze(sidecar, app, secret, 1, lease=9_999).json["lease_s"] <= 60


@pytest.mark.fz("FZ-050")
def test_terminating_is_for_ever(freezer: FreezerProcess, asleep: tuple[Resident, Sidecar, str]) -> None:
    app, sidecar, secret = asleep
    assert sidecar.call(put(app.token, active(2) | {"state": "terminating"}, secret=secret)).json["state"] == "running"
    assert freeze(sidecar, app, secret, 3).kind == "terminal"
    assert not freezer.frozen(app)


@pytest.mark.fz("FZ-055")
def test_a_stop_signal_for_a_sleeping_app_wakes_it_within_a_second(freezer: FreezerProcess, node: Node) -> None:
    app = freezer.add_pod(mode="handling")
    sidecar, secret = freezer.sidecar(app)
    freeze(sidecar, app, secret, 1)
    pid = int(Path(node.at(app.pod.paths[0]), "cgroup.procs").read_text().split()[0])
    os.kill(pid, signal.SIGTERM)
    freezer.until(lambda: not freezer.frozen(app), "thawed for the signal", within=1.0)
    freezer.until(lambda: freezer.pods()[app.uid]["state"] == "running", "and it knows")
    assert freeze(sidecar, app, secret, 2).kind == "terminal"


@pytest.mark.fz("FZ-068")
def test_a_restarted_sidecar_finds_out_how_things_stand(
    freezer: FreezerProcess, asleep: tuple[Resident, Sidecar, str]
) -> None:
    app, sidecar, secret = asleep
    sidecar.close()
    again, new_secret = freezer.sidecar(app)
    view = again.call(get(app.token, secret=new_secret)).json
    assert (view["state"], view["generation"]) == ("frozen", 1) and new_secret != secret
    assert thaw(again, app, new_secret, 2).json["state"] == "running"


# -- policy


@pytest.mark.fz("FZ-085", "FZ-113")
@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_a_pod_that_may_not_sleep_is_answered_running_and_left_alone(freezer: FreezerProcess, mode: str) -> None:
    app = freezer.add_pod(annotations={"queueproxy.dev/freeze": mode})
    sidecar, secret = freezer.sidecar(app)
    reply = freeze(sidecar, app, secret, 1)
    assert (reply.status, reply.json["state"], reply.json["policy"]["mode"]) == (200, "running", mode)
    assert not freezer.frozen(app)


def test_an_annotation_that_changes_while_the_pod_sleeps_wakes_it(
    freezer: FreezerProcess, asleep: tuple[Resident, Sidecar, str]
) -> None:
    app, _, _ = asleep
    freezer.api.modify(app.spec, {"metadata": {"annotations": {"queueproxy.dev/freeze": "off"}}})
    freezer.until(lambda: not freezer.frozen(app), "thawed by the new policy")


@pytest.mark.fz("FZ-096")
def test_a_pod_that_is_deleted_is_let_go_and_its_sidecar_hung_up(
    freezer: FreezerProcess, asleep: tuple[Resident, Sidecar, str]
) -> None:
    app, sidecar, _ = asleep
    freezer.api.delete(app.spec)
    freezer.until(lambda: not freezer.frozen(app), "thawed")
    freezer.until(lambda: app.uid not in freezer.pods(), "forgotten")
    with pytest.raises(ConnectionResetError):
        sidecar.reply()
    assert not (freezer.folder / "journal" / f"{app.uid}.json").exists()


def test_a_container_that_is_gone_is_no_reason_to_fail_a_thaw(freezer: FreezerProcess, node: Node) -> None:
    app = freezer.add_pod()
    sidecar, secret = freezer.sidecar(app)
    freeze(sidecar, app, secret, 1)
    path = node.at(app.pod.paths[0])
    Path(path, "cgroup.kill").write_text("1")
    assert app.work is not None
    app.work.process.wait(10)
    node.remove(app.pod.paths[0], "")
    assert thaw(sidecar, app, secret, 2).json["state"] == "running"
    os.mkdir(path)  # for whoever cleans up


def loses_its_processes(freezer: FreezerProcess, node: Node, app: Resident) -> None:
    """After a thaw, and then it sleeps again: nobody waits for the end of the window."""
    sidecar, secret = freezer.sidecar(app)
    freeze(sidecar, app, secret, 1)
    thaw(sidecar, app, secret, 2)
    threading.Event().wait(0.1)  # until the freezer has seen who is there
    Path(node.at(app.pod.paths[0]), "cgroup.kill").write_text("1")
    assert app.work is not None
    app.work.process.wait(10)
    freeze(sidecar, app, secret, 3)


@pytest.mark.fz("FZ-084")
def test_an_app_that_loses_settled_processes_after_a_thaw_is_throttled_from_then_on(
    freezer: FreezerProcess, node: Node, elder: Elder
) -> None:
    threading.Event().wait(max(0.0, elder.began_at + SETTLED + 0.5 - time.monotonic()))
    loses_its_processes(freezer, node, elder.app)
    freezer.until(lambda: freezer.pods()[elder.app.uid]["mode"] == "throttle", "the fall-back", within=2.0)
    assert "died within 5 s of a thaw" in freezer.pods()[elder.app.uid]["why"]


@pytest.mark.fz("FZ-084")
def test_an_app_that_loses_young_processes_after_a_thaw_is_not_harmed(freezer: FreezerProcess, node: Node) -> None:
    app = freezer.add_pod()
    loses_its_processes(freezer, node, app)
    threading.Event().wait(0.2)
    assert (freezer.pods()[app.uid]["mode"], freezer.pods()[app.uid]["state"]) == ("freeze", "frozen")


# -- the protocol of old


@pytest.mark.fz("FZ-069")
def test_a_sidecar_of_old_freezes_and_thaws_its_pod(freezer: FreezerProcess) -> None:
    app = freezer.add_pod()
    freezer.until(lambda: app.uid in freezer.pods(), "the watch shows it")
    with freezer.dial(app) as sidecar:
        for _ in range(2):
            assert sidecar.call(old(app.token, "pause")).status == 200
            assert freezer.frozen(app)
            assert sidecar.call(old(app.token, "resume")).status == 200
            assert not freezer.frozen(app)


@pytest.mark.fz("FZ-069")
def test_a_pause_before_the_app_can_have_started_is_confirmed_and_not_done(freezer: FreezerProcess) -> None:
    app = freezer.add_pod(annotations={"queueproxy.dev/min-uptime": "1h"})
    freezer.until(lambda: app.uid in freezer.pods(), "the watch shows it")
    with freezer.dial(app) as sidecar:
        assert sidecar.call(old(app.token, "pause")).status == 200
        assert not freezer.frozen(app)


# -- operators


@pytest.mark.fz("FZ-111")
def test_an_operator_thaws_one_pod_and_keeps_it_awake(
    freezer: FreezerProcess, asleep: tuple[Resident, Sidecar, str]
) -> None:
    app, sidecar, secret = asleep
    assert freezer.ask(f"/v1/pods/{app.uid}/thaw?hold=1s", "POST")[0] == 202
    freezer.until(lambda: not freezer.frozen(app), "thawed")
    assert freeze(sidecar, app, secret, 2).json["state"] == "running", "held"
    freezer.until(lambda: not freezer.pods()[app.uid]["why"].startswith("held by an operator"), "the hold ends")
    assert freeze(sidecar, app, secret, 3).json["state"] == "frozen"


@pytest.mark.fz("FZ-104", "FZ-111")
def test_an_operator_thaws_everybody(freezer: FreezerProcess, asleep: tuple[Resident, Sidecar, str]) -> None:
    app, sidecar, secret = asleep

    def told(after: str = "") -> list[tuple[str, int, str]]:
        page = freezer.ask(f"/v1/events?{after and f'after={after}&'}follow=false")[1]
        events = [json.loads(line) for line in page.splitlines()]
        return [(event["kind"], event["generation"], event["id"]) for event in events if event["uid"] == app.uid]

    freezer.until(lambda: len(told()) == 2, "its sleep is told, when nobody waits for anything else")
    stream = told()[-1][2]
    assert freezer.ask("/v1/thaw-all", "POST")[0] == 202
    freezer.until(lambda: not freezer.frozen(app), "thawed")
    assert freeze(sidecar, app, secret, 2).json["state"] == "frozen", "and nothing keeps it awake"
    freezer.until(lambda: len(told(stream)) >= 3, "the rest is told")
    assert [event[:2] for event in told(stream)] == [("thawed", 1), ("idle", 2), ("frozen", 2)]


@pytest.mark.fz("FZ-100", "FZ-103", "FZ-105")
def test_what_happened_is_in_the_metrics(freezer: FreezerProcess, asleep: tuple[Resident, Sidecar, str]) -> None:
    app, sidecar, secret = asleep
    thaw(sidecar, app, secret, 2)

    def value(line: str) -> float:
        page = freezer.ask("/metrics")[1]
        found = [row.rpartition(" ")[2] for row in page.splitlines() if row.startswith(line + " ")]
        assert len(found) == 1, line
        return float(found[0])

    assert value('freezer_moves_total{outcome="confirmed",to="frozen"}') >= 1
    assert value('freezer_move_duration_seconds_count{to="running"}') >= 1
    assert value('freezer_answer_duration_seconds_count{wanted="active"}') >= 1
    assert value('freezer_calls_total{call="state",status="200"}') >= 2
    assert value('freezer_asleep_seconds_total{state="frozen"}') > 0
    assert value("freezer_internal_errors_total") == 0
    assert value("freezer_watch_stale_seconds") == 0
    assert value("process_resident_memory_bytes") < 200e6


# -- when things break


@pytest.fixture
def own(api: ApiServer, node: Node, tmp_path: Path) -> Iterator[FreezerProcess]:
    """A freezer of the test's own, not started."""
    with FreezerProcess(api, node, tmp_path) as freezer:
        yield freezer


@pytest.mark.fz("FZ-092")
def test_a_killed_freezers_successor_adopts_what_is_asleep(own: FreezerProcess) -> None:
    own.start()
    apps = [own.add_pod() for _ in range(3)]
    held = [own.sidecar(app) for app in apps]
    for app, (sidecar, secret) in zip(apps, held, strict=True):
        freeze(sidecar, app, secret, 7)
    own.kill()
    assert all(own.frozen(app) for app in apps), "nobody thaws them meanwhile"
    own.start()
    assert all(own.frozen(app) for app in apps), "the successor leases them once more"
    assert own.pods()[apps[0].uid]["changes"][-1]["kind"] == "adopted"
    sidecar = own.dial(apps[0])
    assert sidecar.call(get(apps[0].token, secret=held[0][1])).json["generation"] == 7
    assert freeze(sidecar, apps[0], held[0][1], 7).json["state"] == "frozen", "renewed with the old secret"
    assert thaw(sidecar, apps[0], held[0][1], 8).json["state"] == "running"
    assert own.frozen(apps[1]) and not own.frozen(apps[0])
    assert own.stop() == 0 and not any(own.frozen(app) for app in apps)


@pytest.mark.fz("FZ-092")
def test_what_is_adopted_and_not_renewed_runs_when_its_one_lease_is_over(
    api: ApiServer, node: Node, tmp_path: Path
) -> None:
    with FreezerProcess(api, node, tmp_path, {"leases": {"longest": "1s"}}) as freezer:
        freezer.start()
        app = freezer.add_pod()
        sidecar, secret = freezer.sidecar(app)
        freeze(sidecar, app, secret, 1)
        freezer.kill()
        freezer.start(ready=False)
        assert freezer.frozen(app)
        freezer.until(lambda: not freezer.frozen(app), "thawed", within=2.5)


@pytest.mark.fz("FZ-064", "FZ-092", "D-10")
def test_thaws_and_renewals_need_no_api_server_even_after_a_restart(node: Node, tmp_path: Path) -> None:
    with ApiServer() as api, FreezerProcess(api, node, tmp_path) as freezer:
        freezer.start()
        first, second = freezer.add_pod(), freezer.add_pod()
        held = [freezer.sidecar(app) for app in (first, second)]
        freeze(held[0][0], first, held[0][1], 1)
        freeze(held[1][0], second, held[1][1], 1)
        api.outage("refuse")
        assert freeze(held[0][0], first, held[0][1], 1).json["state"] == "frozen", "renewed"
        assert thaw(held[0][0], first, held[0][1], 2).json["state"] == "running"
        freezer.kill()
        freezer.start(ready=False)
        sidecar = freezer.dial(second)
        assert freeze(sidecar, second, held[1][1], 1).json["state"] == "frozen", "renewed"
        assert thaw(sidecar, second, held[1][1], 2).json["state"] == "running"
        refused = freeze(sidecar, second, held[1][1], 3)
        assert (refused.status, refused.kind) == (503, "not-ready"), "a new freeze has to wait for the API server"
        stranger = freezer.dial(second)
        assert stranger.call(put(second.token, active(4), secret="guess")).status in (403, 503)
        assert freezer.ask("/readyz")[0] == 503 and freezer.ask("/healthz")[0] == 200
        api.restore()
        freezer.until(lambda: freezer.ask("/readyz")[0] == 200, "ready again", within=40)


def test_a_pod_that_was_deleted_while_no_freezer_was_there_is_let_go(own: FreezerProcess) -> None:
    own.start()
    app = own.add_pod()
    sidecar, secret = own.sidecar(app)
    freeze(sidecar, app, secret, 1)
    own.kill()
    own.api.delete(app.spec)
    own.start()
    own.until(lambda: not own.frozen(app) and app.uid not in own.pods(), "thawed and forgotten", within=5.0)


@pytest.mark.fz("FZ-093")
def test_a_freezer_that_is_stopped_thaws_everybody_and_refuses_to_freeze(own: FreezerProcess) -> None:
    own.start()
    apps = [own.add_pod(mode="ticking" if number == 0 else "sleeping") for number in range(12)]
    held = [own.sidecar(app) for app in apps]
    for app, (sidecar, secret) in zip(apps, held, strict=True):
        freeze(sidecar, app, secret, 1)
    assert own.process is not None
    own.process.send_signal(signal.SIGTERM)
    own.heard("draining")
    refused = None
    try:
        refused = freeze(held[0][0], apps[0], held[0][1], 9)
    except (ConnectionError, OSError):
        pass  # it was quicker
    assert refused is None or refused.kind == "draining"
    assert own.process.wait(15) == 0
    assert not any(own.frozen(app) for app in apps)
    assert list((own.folder / "journal").iterdir()) == []


def test_a_second_signal_ends_it_at_once_and_the_journal_remembers(own: FreezerProcess) -> None:
    own.start()
    apps = [own.add_pod(mode="sleeping") for _ in range(30)]
    for app in apps:
        sidecar, secret = own.sidecar(app)
        freeze(sidecar, app, secret, 1)
    assert own.process is not None
    own.process.send_signal(signal.SIGTERM)
    own.heard("draining")
    own.process.send_signal(signal.SIGTERM)
    assert own.process.wait(10) in (0, 1)
    left = {path.stem for path in (own.folder / "journal").iterdir()}
    assert {app.uid for app in apps if own.frozen(app)} <= left
    own.start()
    assert own.stop() == 0 and not any(own.frozen(app) for app in apps)


@pytest.mark.clock
def test_a_freezer_that_is_stopped_while_nothing_sleeps_ends_at_once(own: FreezerProcess) -> None:
    own.start(ready=False)
    began = time.monotonic()
    assert own.stop() == 0 and time.monotonic() - began < 5.0


def test_a_journal_that_cannot_be_written_costs_the_freeze_and_nothing_else(own: FreezerProcess) -> None:
    own.start()
    app = own.add_pod()
    sidecar, secret = own.sidecar(app)
    journal = own.folder / "journal"
    moved = journal.rename(own.folder / "elsewhere")
    for leftover in moved.iterdir():
        leftover.unlink()
    moved.rmdir()  # the freezer holds a directory that no longer exists
    refused = freeze(sidecar, app, secret, 1)
    assert (refused.status, refused.kind) == (502, "not-confirmed") and "journal" in refused.json["detail"]
    assert not freezer_is_frozen(own, app)
    assert thaw(sidecar, app, secret, 2).json["state"] == "running"


def freezer_is_frozen(freezer: FreezerProcess, app: Resident) -> bool:
    remains(lambda: not freezer.frozen(app), "still running")
    return freezer.frozen(app)


@pytest.mark.fz("FZ-097")
def test_a_record_that_cannot_be_read_ends_in_a_thaw(own: FreezerProcess) -> None:
    own.start()
    app = own.add_pod()
    sidecar, secret = own.sidecar(app)
    freeze(sidecar, app, secret, 1)
    own.kill()
    path = own.folder / "journal" / f"{app.uid}.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"version": 99}))
    own.start()
    own.until(lambda: not own.frozen(app), "thawed", within=5.0)
    own.heard("a journal record cannot be read")


def test_a_port_that_is_taken_is_said_and_nothing_is_adopted(own: FreezerProcess) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = own.config.read_text().replace('"0.0.0.0:0"', f'"127.0.0.1:{taken.getsockname()[1]}"')
        own.config.write_text(text)
        run = subprocess.run(
            [sys.executable, "-m", "queueproxy", "freezer", "--config", str(own.config)],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    assert run.returncode == 1 and "address already in use" in run.stderr


def test_an_operators_port_that_is_taken_ends_the_freezer(own: FreezerProcess) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = own.config.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{taken.getsockname()[1]}"')
        own.config.write_text(text)
        run = subprocess.run(
            [sys.executable, "-m", "queueproxy", "freezer", "--config", str(own.config)],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    assert run.returncode == 1 and "the operators' port cannot be served" in run.stderr


@pytest.mark.fz("FZ-120", "L-02")
def test_it_runs_as_uid_0_without_a_single_capability(own: FreezerProcess) -> None:
    command = [
        "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs",
        sys.executable, "-m", "queueproxy", "freezer", "--config", str(own.config),
    ]  # fmt: skip
    own.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    threading.Thread(target=own._listen, args=(own.process,), daemon=True).start()
    own.heard("serving operators")
    own.until(lambda: own.ask("/readyz")[0] == 200, "ready")
    status = Path(f"/proc/{own.process.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    app = own.add_pod()
    sidecar, secret = own.sidecar(app)
    assert freeze(sidecar, app, secret, 1).json["state"] == "frozen"
    assert thaw(sidecar, app, secret, 2).json["state"] == "running"
    assert own.stop() == 0
    assert not any(line["message"].startswith("running with capabilities") for line in own.log)


@pytest.mark.fz("FZ-133")
def test_sidecars_may_be_served_over_tls(api: ApiServer, node: Node, tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=node",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    settings = {"listen": {"plain-http": False, "certificate": str(certificate), "key": str(key)}}
    with FreezerProcess(api, node, tmp_path, settings) as freezer:
        freezer.start(ready=False)
        trust = ssl.create_default_context(cafile=str(certificate))
        with (
            socket.create_connection(("127.0.0.1", freezer.port), 10) as raw,
            trust.wrap_socket(raw, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(get("no token"))
            assert secure.recv(4096).startswith(b"HTTP/1.1 403 ")
        with socket.create_connection(("127.0.0.1", freezer.port), 10) as plain:
            plain.sendall(get("no token"))
            assert not plain.recv(4096).startswith(b"HTTP/")


def test_its_name_for_the_node_decides_which_pods_are_its_own(own: FreezerProcess) -> None:
    own.start()
    app = own.add_pod(overrides={"spec": {"nodeName": "elsewhere"}})
    mine = own.add_pod()
    own.until(lambda: mine.uid in own.pods(), "the watch shows ours")
    assert app.uid not in own.pods() and own.name == NODE
    with own.dial(app) as sidecar:
        reply = sidecar.call(put(app.token, idle(1)))
        assert (reply.status, reply.kind) == (403, "forbidden")
