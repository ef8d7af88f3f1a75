"""Where hierarchies are mounted: real mountinfo lines of the three worlds and of containers in them."""

import os
from pathlib import Path

import pytest

from queueproxy.freeze.node.hierarchy import Mounts, parse_mounts, parse_self

V2_ONLY = """\
24 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw
30 1 252:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard,errors=remount-ro
34 25 0:29 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,memory_recursiveprot
"""
SYSTEMD_HYBRID = """\
30 24 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,seclabel,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd
35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct
36 30 0:32 / /sys/fs/cgroup/freezer rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,seclabel,freezer
37 30 0:33 / /sys/fs/cgroup/cpuset rw,relatime shared:17 - cgroup cgroup rw,cpuset,noprefix,release_agent=/sbin/agent
"""
V1_ONLY = """\
36 30 0:32 / /sys/fs/cgroup/freezer rw,nosuid,nodev,noexec,relatime - cgroup cgroup rw,freezer
35 30 0:31 / /sys/fs/cgroup/cpu rw,relatime shared:15 master:3 propagate_from:2 - cgroup cgroup rw,cpu
"""
# Docker on v1 without a cgroup namespace: each hierarchy shows only the container's own part.
BIND_MOUNTED = """\
631 630 0:32 /docker/0a1b /sys/fs/cgroup/freezer ro,nosuid,nodev,noexec,relatime master:16 - cgroup freezer rw,freezer
632 630 0:31 /docker/0a1b /sys/fs/cgroup/cpu,cpuacct ro,nosuid,relatime master:15 - cgroup cgroup rw,cpu,cpuacct
"""
# A node daemon with a private cgroup namespace: its own hierarchy, and the host's at another place.
NODE_DAEMON = """\
800 799 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
801 799 0:29 /../../.. /host/sys/fs/cgroup rw,nosuid,nodev,noexec,relatime master:9 - cgroup2 cgroup2 rw,nsdelegate
"""


@pytest.mark.parametrize(
    ("text", "v2", "v1"),
    [
        pytest.param(V2_ONLY, "/sys/fs/cgroup", {}, id="v2-only"),
        pytest.param(
            SYSTEMD_HYBRID,
            "/sys/fs/cgroup/unified",
            {
                "name=systemd": "/sys/fs/cgroup/systemd",
                "cpu": "/sys/fs/cgroup/cpu,cpuacct",
                "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
                "freezer": "/sys/fs/cgroup/freezer",
                "cpuset": "/sys/fs/cgroup/cpuset",
            },
            id="hybrid",
        ),
        pytest.param(V1_ONLY, None, {"freezer": "/sys/fs/cgroup/freezer", "cpu": "/sys/fs/cgroup/cpu"}, id="v1-only"),
        pytest.param("", None, {}, id="nothing"),
        pytest.param("not a mountinfo line\n1 2 3\n - - \n", None, {}, id="rubbish"),
    ],
)
def test_mounts_of_the_three_worlds(text: str, v2: str | None, v1: dict[str, str]) -> None:
    mounts = parse_mounts(text)
    assert mounts.v2 == v2
    assert mounts.v1 == v1
    assert set(mounts.roots.values()) <= {"/"}


def test_escaped_characters_in_a_mount_point_are_read() -> None:
    line = r"34 25 0:29 /a\040b /mnt/with\040space\011tab\134back\012line rw - cgroup2 cgroup2 rw"
    mounts = parse_mounts(line)
    assert mounts.v2 == "/mnt/with space\ttab\\back\nline"
    assert mounts.roots[mounts.v2] == "/a b"


def test_a_later_mount_covers_an_earlier_one_at_the_same_place() -> None:
    text = V2_ONLY + "90 34 0:50 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    assert parse_mounts(text).v2 is None


@pytest.mark.parametrize("turned", [False, True], ids=["as-is", "reversed"])
def test_of_two_mounts_the_one_that_shows_more_is_taken(turned: bool) -> None:
    lines = [
        "1 0 0:9 /docker/0a1b /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
        "2 0 0:9 / /mnt/all rw - cgroup2 cgroup2 rw",
        "3 0 0:9 / /mnt/all/again rw - cgroup2 cgroup2 rw",
    ]
    mounts = parse_mounts("\n".join(reversed(lines) if turned else lines))
    assert mounts == Mounts("/mnt/all", {}, {"/mnt/all": "/"})


def test_a_node_daemon_finds_the_host_s_hierarchy_where_it_is_mounted() -> None:
    assert parse_mounts(NODE_DAEMON).v2 == "/sys/fs/cgroup"
    assert parse_mounts(NODE_DAEMON, under="/host/sys/fs/cgroup").v2 == "/host/sys/fs/cgroup"
    assert parse_mounts(NODE_DAEMON, under="/host/").v2 == "/host/sys/fs/cgroup"
    assert parse_mounts(NODE_DAEMON, under="/hos").v2 is None


@pytest.mark.parametrize(
    ("text", "places"),
    [
        pytest.param("0::/user.slice/app.scope\n", {"": "/user.slice/app.scope"}, id="v2"),
        pytest.param(
            "9:name=systemd:/\n5:cpu,cpuacct:/docker/0a1b\n0::/\n",
            {"name=systemd": "/", "cpu": "/docker/0a1b", "cpuacct": "/docker/0a1b", "": "/"},
            id="hybrid",
        ),
        pytest.param(
            "0::/cri-containerd:0a:1b and more\n", {"": "/cri-containerd:0a:1b and more"}, id="colons-and-spaces"
        ),
        pytest.param("\nrubbish\nx:cpu:/\n7\n7:cpu\n", {}, id="rubbish"),
    ],
)
def test_places_of_a_process(text: str, places: dict[str, str]) -> None:
    assert parse_self(text) == places


@pytest.mark.parametrize(
    ("text", "controller", "path", "directory"),
    [
        pytest.param(V2_ONLY, "", "/a.slice/b.scope", "/sys/fs/cgroup/a.slice/b.scope", id="v2"),
        pytest.param(V2_ONLY, "", "/", "/sys/fs/cgroup", id="v2-root"),
        pytest.param(V2_ONLY, "freezer", "/", None, id="not-mounted"),
        pytest.param(SYSTEMD_HYBRID, "cpuacct", "/x", "/sys/fs/cgroup/cpu,cpuacct/x", id="shared-mount"),
        pytest.param(BIND_MOUNTED, "freezer", "/docker/0a1b", "/sys/fs/cgroup/freezer", id="bind-mounted-root"),
        pytest.param(BIND_MOUNTED, "cpu", "/docker/0a1b/x", "/sys/fs/cgroup/cpu,cpuacct/x", id="bind-mounted-below"),
        pytest.param(BIND_MOUNTED, "cpu", "/docker/0a1bc", None, id="a-longer-name-is-not-below"),
        pytest.param(BIND_MOUNTED, "cpu", "/docker", None, id="outside-what-is-shown"),
        pytest.param(V2_ONLY, "", "/../other", None, id="above-our-namespace"),
        pytest.param(V2_ONLY, "", "relative", None, id="not-absolute"),
    ],
)
def test_a_place_becomes_a_directory(text: str, controller: str, path: str, directory: str | None) -> None:
    mounts = parse_mounts(text)
    assert mounts.locate(controller, path) == directory
    assert mounts.place(controller, {controller: path}) == directory
    assert mounts.place(controller, {}) is None


def test_this_machine_s_own_files_lead_to_directories_that_list_us() -> None:
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
    places = parse_self(Path("/proc/self/cgroup").read_text())
    found = [place for controller in places if (place := mounts.place(controller, places)) is not None]
    if not found:
        pytest.skip("NOT PROVEN HERE: no cgroup hierarchy is mounted")
    for place in found:
        assert str(os.getpid()) in Path(place, "cgroup.procs").read_text().split(), place
