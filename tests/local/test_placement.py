"""Where the app is put: which places are tried in which world, and what makes one count."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.node.hierarchy import parse_mounts, parse_self
from queueproxy.local import placement
from queueproxy.local.journal import run_name
from queueproxy.local.placement import Place, PlacementError, Plan, place, plans
from queueproxy.local.procfs import identity

NAME = "queueproxy-4242-f00-ab12"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: cgroups need root")

UNIFIED_ONLY = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = """\
30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
31 23 0:27 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
32 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
"""
V1_ONLY = "\n".join(HYBRID.splitlines()[1:])
# A container on a v1 machine: its own cgroup is mounted where the root would be.
BOUND = "31 23 0:27 /docker/abc /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer"

SESSION = "0::/user.slice/session-1.scope"
PLACES = "5:freezer:/\n4:cpu,cpuacct:/user.slice\n0::/user.slice"


@pytest.mark.parametrize(
    ("way", "needs_cpu", "mountinfo", "cgroup", "expected"),
    [
        pytest.param(
            "auto",
            False,
            UNIFIED_ONLY,
            SESSION,
            [
                Plan("cgroup2", f"/sys/fs/cgroup/user.slice/session-1.scope/{NAME}", None, ...),  # type: ignore[arg-type]
                Plan("signal"),
            ],
            id="v2: below us, then signals",
        ),
        pytest.param(
            "auto",
            True,
            UNIFIED_ONLY,
            SESSION,
            [
                Plan("cgroup2", (s := f"/sys/fs/cgroup/user.slice/session-1.scope/{NAME}"), s, s),
                Plan("cgroup2", (t := f"/sys/fs/cgroup/{NAME}"), t, t),
            ],
            id="v2 with CPU: below us, then at the top, never signals",
        ),
        pytest.param(
            "auto",
            False,
            HYBRID,
            PLACES,
            [
                Plan("cgroup2", (u := f"/sys/fs/cgroup/unified/user.slice/{NAME}"), None, u),
                Plan(
                    "cgroup1",
                    f"/sys/fs/cgroup/freezer/{NAME}",
                    None,
                    f"/sys/fs/cgroup/cpu,cpuacct/user.slice/{NAME}",
                ),
                Plan("signal"),
            ],
            id="hybrid: v2, v1, signals",
        ),
        pytest.param(
            "v2",
            True,
            HYBRID,
            PLACES,
            [
                Plan("cgroup2", u, u, u),
                Plan("cgroup2", u, f"/sys/fs/cgroup/cpu,cpuacct/user.slice/{NAME}", u),
                Plan("cgroup2", (top := f"/sys/fs/cgroup/unified/{NAME}"), top, top),
            ],
            id="hybrid with CPU: the limit may come from v1",
        ),
        pytest.param("v2", False, V1_ONLY, PLACES, [], id="v2 asked for where there is none"),
        pytest.param(
            "v1",
            False,
            BOUND,
            "5:freezer:/docker/abc",
            [Plan("cgroup1", f"/sys/fs/cgroup/freezer/{NAME}", None, None)],
            id="a container that sees its own part",
        ),
        pytest.param("signal", False, HYBRID, PLACES, [Plan("signal")], id="signals asked for"),
        pytest.param("signal", True, HYBRID, PLACES, [], id="signals cannot throttle"),
        pytest.param("auto", False, "", "", [Plan("signal")], id="no cgroups at all"),
    ],
)
def test_the_plans_fit_the_world(way: str, needs_cpu: bool, mountinfo: str, cgroup: str, expected: list[Plan]) -> None:
    found = plans(way, parse_mounts(mountinfo), parse_self(cgroup), NAME, needs_cpu=needs_cpu)
    wanted = [
        Plan(plan.mechanism, plan.freezer, plan.cpu, plan.freezer) if plan.usage is ... else plan for plan in expected
    ]
    assert found == wanted


def test_a_place_that_cannot_be_made_is_left_without_traces_and_the_next_is_tried(tmp_path: Path) -> None:
    # Ordinary directories are no cgroups: the first check after mkdir finds out.
    plan = Plan("cgroup2", str(tmp_path / "a"), None, str(tmp_path / "a"))
    assert place([plan, Plan("signal")]) == (None, [f"cgroup2: '{tmp_path}/a': not on a cgroup filesystem"])
    assert list(tmp_path.iterdir()) == []


def test_nowhere_at_all_is_an_error_that_names_every_refusal(tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match=r"cgroup2: .*missing"):
        place([Plan("cgroup2", str(tmp_path / "missing" / "a"), None, None)])


def test_v2_without_a_cpu_controller_handed_down_is_no_place_for_throttling(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    _, refused = place([Plan("cgroup2", path, path, path), Plan("signal")])
    assert "cpu.max" in refused[0]


@pytest.fixture(params=["v2", "v1"])
def made(request: pytest.FixtureRequest) -> Iterator[Place]:
    us = identity(os.getpid())
    assert us is not None
    mounts, places = placement.read_hierarchy()
    found, _ = place(plans(request.param, mounts, places, run_name(us), needs_cpu=True))
    assert found is not None
    yield found
    found.close()
    found.remove()


@pytest.mark.root
@root_only
def test_a_process_that_walks_in_is_in(made: Place) -> None:
    child = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: [os.write(door, b"0") for door in made.doors] and None)
    try:
        with open(f"/proc/{child.pid}/cgroup", encoding="ascii") as file:
            places = file.read()
        assert places.count(os.path.basename(made.plan.cgroups[0])) == len(made.plan.cgroups)
        assert made.remove() == list(made.plan.cgroups)  # somebody lives there
    finally:
        child.kill()
        child.wait()
    assert made.remove() == []


@pytest.mark.root
@root_only
def test_what_the_app_made_inside_goes_with_it(made: Place) -> None:
    os.makedirs(f"{made.plan.freezer}/inner/most")
    made.close()
    assert made.remove() == []
    assert not any(os.path.exists(path) for path in made.plan.cgroups)
    assert made.remove() == []


@pytest.mark.root
@root_only
def test_permission_to_make_a_directory_is_not_yet_permission_to_move(tmp_path: Path) -> None:
    """A user to whom a subtree is delegated, but who sits outside it: mkdir works, moving in does not."""
    mounts, _ = placement.read_hierarchy()
    assert mounts.v2 is not None
    us = identity(os.getpid())
    assert us is not None
    parent = f"{mounts.v2}/{run_name(us)}"
    os.mkdir(parent)
    os.chown(parent, 65534, 65534)
    try:
        pid = os.fork()
        if pid == 0:
            os.setgid(65534)
            os.setuid(65534)
            try:
                place([Plan("cgroup2", f"{parent}/{NAME}", None, None)])
            except PlacementError as error:
                os._exit(0 if "ermission denied" in str(error) and not os.path.exists(f"{parent}/{NAME}") else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        assert placement.remove_cgroup(parent)


@pytest.mark.root
@root_only
def test_cgroups_named_like_a_runs_are_found_wherever_they_are(made: Place) -> None:
    mounts, _ = placement.read_hierarchy()
    found = dict(placement.leftovers(mounts))
    assert set(made.plan.cgroups) <= set(found)


def test_removing_what_is_not_there_is_done() -> None:
    assert placement.remove_cgroup("/sys/fs/cgroup/queueproxy-no-such")
