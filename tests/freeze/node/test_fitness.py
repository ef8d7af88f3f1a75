"""What the doctor looks at, on trees of ordinary files and on the real machine."""

from pathlib import Path

import pytest

from queueproxy.freeze.node.fitness import Finding, Node, Verdict, capabilities, examine
from tests.support.cgroupfs import real_cgroups
from tests.support.kubepods import Node as RealNode

POD = "kubepods-burstable.slice/kubepods-burstable-pod11111111_1111_1111_1111_111111111111.slice"


def node(tmp_path: Path, *, mounts: str = "v2", caps: str = "0000000000000000", clock: str = "tsc") -> Node:
    """A node made of files; `mounts` names the hierarchies."""
    lines = {
        "v2": f"36 35 0:33 / {tmp_path}/cg/unified rw - cgroup2 cgroup2 rw",
        "freezer": f"37 35 0:34 / {tmp_path}/cg/freezer rw - cgroup cgroup rw,freezer",
        "cpu": f"38 35 0:35 / {tmp_path}/cg/cpu rw - cgroup cgroup rw,cpu,cpuacct",
        "systemd": f"39 35 0:36 / {tmp_path}/cg/systemd rw - cgroup cgroup rw,name=systemd",
    }
    (tmp_path / "mountinfo").write_text("".join(lines[name] + "\n" for name in mounts.split()))
    (tmp_path / "status").write_text(f"Name:\tx\nCapEff:\t{caps}\n")
    (tmp_path / "clock").write_text(clock + "\n")
    return Node(
        cgroups=f"{tmp_path}/cg", journal=f"{tmp_path}/run/journal", mountinfo=f"{tmp_path}/mountinfo",
        status=f"{tmp_path}/status", clocksource=f"{tmp_path}/clock",
    )  # fmt: skip


def put(tmp_path: Path, *paths: str) -> None:
    for path in paths:
        place = tmp_path / "cg" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("")


def found(node: Node) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(node)}


def test_a_v2_node_with_everything_is_good_all_over(tmp_path: Path) -> None:
    top = "unified/kubepods.slice"
    put(tmp_path, *(f"{top}/{name}" for name in (
        "cgroup.freeze", "cgroup.events", "cpu.max", "cgroup.kill", "cgroup.stat.local",
        f"{POD}/cri-containerd-{'a' * 64}.scope/cgroup.procs")))  # fmt: skip
    (tmp_path / "cg" / top / POD / f"cri-containerd-{'a' * 64}.scope/cgroup.procs").write_text("4711\n")
    looked = found(node(tmp_path))
    verdicts = {what: finding.verdict for what, finding in looked.items() if what != "privileges"}
    assert set(verdicts.values()) == {Verdict.GOOD}, verdicts
    assert "systemd driver" in looked["kubepods"].found and looked["runtimes"].found == "containers of containerd"


@pytest.mark.parametrize(
    ("mounts", "files", "what", "verdict", "said"),
    [
        ("systemd", [], "cgroups", Verdict.BAD, "no cgroup hierarchy"),
        ("v2", [], "kubepods", Verdict.BAD, "no kubepods directory"),
        ("v2", ["unified/kubepods/cpu.max"], "freezer", Verdict.BAD, "neither"),
        ("v2", ["unified/kubepods/cpu.max"], "permission", Verdict.BAD, "nothing to write to"),
        ("v2", ["unified/kubepods/cgroup.freeze"], "cpu controller", Verdict.POOR, "no cpu.max"),
        ("v2 cpu", ["cpu/kubepods/cpu.cfs_quota_us"], "cpu controller", Verdict.GOOD, "cpu.cfs_quota_us"),
        ("freezer cpu", ["freezer/kubepods/freezer.state"], "cgroups", Verdict.POOR, "v1 with cpu, cpuacct, freezer"),
        ("freezer", ["freezer/kubepods/freezer.state"], "freezer", Verdict.GOOD, "freezer.state"),
        ("freezer", ["freezer/kubepods/freezer.state"], "frozen time", Verdict.POOR, "no cgroup v2"),
        ("v2 freezer", ["unified/kubepods/x"], "cgroups", Verdict.GOOD, "hybrid"),
        ("v2", ["unified/kubepods/cgroup.events"], "cgroup.kill", Verdict.POOR, "no cgroup.kill"),
        ("v2", ["unified/kubepods/burstable/podx/" + "b" * 64 + "/cgroup.procs"], "runtimes", Verdict.GOOD, "cgroupfs"),
        ("v2", ["unified/kubepods.slice/k-podx.slice/crio-x.scope/y"], "runtimes", Verdict.GOOD, "CRI-O"),
        ("v2", ["unified/kubepods/x"], "stop signals", Verdict.UNKNOWN, "no container"),
    ],
)  # fmt: skip
def test_what_is_there_and_what_is_missing(
    tmp_path: Path, mounts: str, files: list[str], what: str, verdict: Verdict, said: str
) -> None:
    put(tmp_path, *files)
    finding = found(node(tmp_path, mounts=mounts))[what]
    assert finding.verdict is verdict and said in finding.found
    assert finding.todo or verdict is not Verdict.BAD, "what is bad comes with what to do"


def test_processes_of_another_pid_namespace_are_noticed(tmp_path: Path) -> None:
    put(tmp_path, "unified/kubepods/podx/c/cgroup.procs")
    (tmp_path / "cg/unified/kubepods/podx/c/cgroup.procs").write_text("0\n0\n")
    assert found(node(tmp_path))["stop signals"].verdict is Verdict.POOR


def test_a_mount_table_that_cannot_be_read_leaves_one_finding() -> None:
    assert [finding.verdict for finding in examine(Node(mountinfo="/nowhere"))] == [Verdict.UNKNOWN]


def test_a_look_that_fails_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    looked = found(node(tmp_path)._replace(clocksource="/nowhere"))
    assert looked["clock"].verdict is Verdict.UNKNOWN and len(looked) == 12


@pytest.mark.fz("FZ-120")
@pytest.mark.parametrize(
    ("caps", "names"),
    [
        ("0000000000000000", []),
        ("0000000000200000", ["sys_admin"]),
        ("8000000000000001", ["chown", "63"]),
    ],
)
def test_capabilities_have_their_names(tmp_path: Path, caps: str, names: list[str]) -> None:
    assert capabilities(node(tmp_path, caps=caps).status) == names


def test_a_slow_clock_is_said(tmp_path: Path) -> None:
    assert found(node(tmp_path, clock="hpet"))["clock"].verdict is Verdict.POOR


class TestReal:
    pytestmark = real_cgroups("")

    def test_a_real_kubepods_directory_is_fit(self, tmp_path: Path) -> None:
        with RealNode("") as real:
            pod = real.pod()
            real.run(pod.paths[0])
            looked = found(Node(kubepods=(real.root,), journal=str(tmp_path)))
        for what in ("kubepods", "freezer", "permission", "runtimes", "stop signals", "journal"):
            assert looked[what].verdict is Verdict.GOOD, looked[what]
