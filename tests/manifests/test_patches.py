"""What is applied to a cluster says what the code does: names, ports, paths, rights and defaults are the same."""

import asyncio
import re
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from queueproxy.cli import main
from queueproxy.clock import monotonic
from queueproxy.freeze import address
from queueproxy.freeze.node.claims import Standing, Verdict
from queueproxy.freeze.node.cluster import Cluster
from queueproxy.freeze.node.config import NodeConfig, load
from queueproxy.freeze.node.inventory import Rules
from queueproxy.freeze.node.naming import ROOTS
from queueproxy.freeze.node.pods import Pods
from queueproxy.freeze.node.review import Reviewer
from queueproxy.log import LineWriter, Log
from tests.support import captured
from tests.support.apiserver import ApiServer
from tests.support.knative_pod import knative_pod
from tests.support.tokens import AUDIENCE
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PATCHES = ROOT / "patches"
FREEZER = PATCHES / "freezer"
ENVIRON = {"NODE_NAME": "node1", "POD_UID": "12345678-1234-1234-1234-123456789abc"}
COMPONENTS = ("cgroupfs-driver", "cgroup-v1", "cgroup-v1-cgroupfs-driver", "no-host-pid")


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


@cache
def daemonset() -> dict[str, Any]:
    (found,) = documents(FREEZER / "daemonset.yaml")
    return found


def pod() -> dict[str, Any]:
    return daemonset()["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return found  # type: ignore[no-any-return]


def config() -> NodeConfig:
    return load((FREEZER / "freezer.toml").read_text(), ENVIRON)


@pytest.mark.fz("FZ-120")
def test_the_freezer_is_uid_0_and_nothing_besides() -> None:
    security = container()["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (0, 0)
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["readOnlyRootFilesystem"] is True and security["allowPrivilegeEscalation"] is False
    assert security["privileged"] is False and security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostIPC" not in pod() and "initContainers" not in pod()


@pytest.mark.fz("FZ-120", "FZ-121", "L-03")
def test_of_the_node_it_has_the_kubepods_directory_and_its_journal() -> None:
    host = [volume["hostPath"] for volume in pod()["volumes"] if "hostPath" in volume]
    assert {each["path"]: each["type"] for each in host} == {
        "/sys/fs/cgroup/kubepods.slice": "Directory",
        config().journal: "DirectoryOrCreate",
    }
    writable = {mount["mountPath"] for mount in container()["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {f"{config().cgroups}/kubepods.slice", config().journal}
    assert "kubepods.slice" in ROOTS
    assert not re.search(r"\.sock\b|/var/run/(?!secrets)|/run/containerd", (FREEZER / "daemonset.yaml").read_text())


@pytest.mark.fz("FZ-122", "L-12")
def test_rbac_is_reviews_of_tokens_and_a_look_at_pods() -> None:
    role, binding = documents(FREEZER / "rbac.yaml")
    rights = {
        (verb, resource, group)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for group in rule["apiGroups"]
    }
    assert rights == {
        ("create", "tokenreviews", "authentication.k8s.io"), ("list", "pods", ""), ("watch", "pods", ""),
    }  # fmt: skip
    assert all(set(rule) == {"verbs", "resources", "apiGroups"} for rule in role["rules"])
    (account,) = documents(FREEZER / "serviceaccount.yaml")
    name, namespace = account["metadata"]["name"], documents(FREEZER / "namespace.yaml")[0]["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"] and binding["roleRef"]["kind"] == "ClusterRole"
    assert pod()["serviceAccountName"] == name and account["automountServiceAccountToken"] is False
    assert yaml.safe_load((FREEZER / "kustomization.yaml").read_text())["namespace"] == namespace


@pytest.mark.slow
@pytest.mark.fz("FZ-122")
def test_those_rights_are_enough_and_all_are_used(tmp_path: Path) -> None:
    role, _ = documents(FREEZER / "rbac.yaml")
    rights = {(verb, resource) for rule in role["rules"] for verb in rule["verbs"] for resource in rule["resources"]}
    one = knative_pod()
    with ApiServer([one], rights=rights) as api, (tmp_path / "log").open("wb") as log_file:

        async def inventory_and_review() -> Verdict:
            cluster, log = Cluster(str(api.kubeconfig_path)), Log(LineWriter(log_file.fileno()))
            pods = Pods(cluster, Rules("node1"), config().defaults, log, known=lambda _: None, gone=lambda _: None)
            reviewer = Reviewer(cluster, config().identity.audience, "node1", log)
            verdicts: list[Verdict] = []
            pods.start()
            reviewer.ask(api.mint_token(one), verdicts.append)
            await until(lambda: verdicts and pods.stale_for(monotonic()) == 0.0)
            await pods.close()
            await reviewer.close()
            await cluster.close()
            return verdicts[0]

        assert asyncio.run(inventory_and_review()).standing is Standing.GOOD
        assert set(api.calls) == rights


@pytest.mark.fz("FZ-123")
def test_it_is_node_critical_bounded_probed_and_runs_wherever_revisions_do() -> None:
    spec = pod()
    assert spec["priorityClassName"] == "system-node-critical"
    assert {"operator": "Exists"} in spec["tolerations"]
    resources = container()["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"] and "cpu" not in resources["limits"]
    assert daemonset()["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container()[probe]["httpGet"] == {
            "host": config().listen.operators.host, "port": "operators", "path": path
        }  # fmt: skip
    assert spec["terminationGracePeriodSeconds"] > config().drain_s + 5
    selector = daemonset()["spec"]["selector"]["matchLabels"]
    assert selector.items() <= daemonset()["spec"]["template"]["metadata"]["labels"].items()


def test_ports_are_the_codes() -> None:
    ports = {port["name"]: (port["containerPort"], port["hostPort"]) for port in container()["ports"]}
    listen = config().listen
    assert ports == {"sidecars": (listen.sidecars.port,) * 2, "operators": (listen.operators.port,) * 2}
    assert listen.sidecars.port == address.PORT
    assert pod()["hostNetwork"] is True  # the loopback of the operators' port is the node's
    assert config().identity.check_peer is True


def test_the_command_line_is_understood_and_the_configuration_is_good(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, command, *flags = container()["command"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert (program, command) == ("queueproxy", "freezer")
    assert flags == ["--config", f"{mounts['config']}/freezer.toml"]
    assert {each["name"] for each in container()["env"]} == set(ENVIRON)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    assert main([command, "--config", str(FREEZER / "freezer.toml"), "--check"]) == 0
    assert "plain-http" in capfd.readouterr().err  # FZ-133: said, because it was chosen
    assert config().rules == Rules("node1", own_uid=ENVIRON["POD_UID"])


OTHER_WAYS = ("# certificate =", "# key =", '# sidecars = "unix:')


@pytest.mark.fz("FZ-133")
def test_what_is_commented_out_is_the_default_and_the_other_ways_to_listen_are_good() -> None:
    text = (FREEZER / "freezer.toml").read_text()
    lines = text.splitlines()
    plain = [line for line in lines if not line.startswith(OTHER_WAYS)]
    spelled_out = "\n".join(re.sub(r"^# (?=[a-z-]+ = )", "", line) for line in plain)
    assert spelled_out.count("\n") == text.count("\n") - 1 - len(OTHER_WAYS)
    assert len(tomllib.loads(spelled_out)["listen"]) == 4
    assert load(spelled_out, ENVIRON) == config()
    way = {
        "tls": [line[2:] for line in lines if line.startswith(OTHER_WAYS[:2])],
        "unix": [line[2:] for line in lines if line.startswith(OTHER_WAYS[2])],
    }
    tls = load(text.replace("plain-http = true", "\n".join(way["tls"])), ENVIRON)
    assert tls.listen.certificate and tls.listen.key and not tls.notes
    unix = load(
        text.replace("plain-http = true", "\n".join(way["unix"])).replace("# check-peer = true", "check-peer = false"),
        ENVIRON,
    )
    assert unix.listen.sidecars.path


@pytest.mark.fz("FZ-001", "L-09")
def test_knative_is_told_two_things() -> None:
    (patch,) = documents(PATCHES / "knative-config/config-deployment.yaml")
    assert patch["metadata"] == {"name": "config-deployment", "namespace": "knative-serving"}
    assert set(patch["data"]) == {"queue-sidecar-image", "queue-sidecar-token-audiences"}
    assert patch["data"]["queue-sidecar-token-audiences"] == config().identity.audience == AUDIENCE


@pytest.mark.fz("FZ-001")
def test_both_keys_are_ones_that_knative_knows() -> None:
    shipped = captured.CAPTURED / "_config-shipped/core_configmaps_deployment.yaml"
    if not shipped.exists():
        pytest.skip(captured.MISSING)
    (patch,) = documents(PATCHES / "knative-config/config-deployment.yaml")
    (real,) = documents(shipped)
    assert {key: real["metadata"][key] for key in ("name", "namespace")} == patch["metadata"]
    known = set(real["data"]) | set(re.findall(r"^\s*(?:# )?([a-z-]+):", real["data"]["_example"], re.MULTILINE))
    assert set(patch["data"]) <= known


# ---- built, as an operator would


@cache
def _kustomize() -> list[str]:
    if found := shutil.which("kustomize"):
        return [found, "build"]
    if found := shutil.which("kubectl"):
        return [found, "kustomize"]
    pytest.skip("needs kubectl or kustomize")


def built(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    run = subprocess.run([*_kustomize(), str(folder)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # deprecated fields are warned of
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(run.stdout) if each}


def overlay(folder: Path, text: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Built on a copy of our patches."""
    shutil.copytree(PATCHES, folder / "patches")
    (folder / "kustomization.yaml").write_text(
        f"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n{text}"
    )
    return built(folder)


def test_everything_builds_with_one_image_for_both(tmp_path: Path) -> None:
    shutil.copytree(PATCHES, tmp_path / "patches")
    file = tmp_path / "patches/kustomization.yaml"
    file.write_text(file.read_text().replace("  newTag: 0.1.0", "  newName: example.org/qp\n  newTag: v9"))
    made = built(tmp_path / "patches")
    assert made["ConfigMap", "config-deployment"]["data"]["queue-sidecar-image"] == "example.org/qp:v9"
    spec = made["DaemonSet", "queueproxy-freezer"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "example.org/qp:v9"
    (generated,) = [name for kind, name in made if kind == "ConfigMap" and name.startswith("queueproxy-freezer-")]
    assert spec["volumes"][0]["configMap"]["name"] == generated
    assert made["ConfigMap", generated]["data"]["freezer.toml"] == (FREEZER / "freezer.toml").read_text()
    kinds = ("DaemonSet", "ServiceAccount")
    assert {each["metadata"]["namespace"] for each in made.values() if each["kind"] in kinds} == {"queueproxy"}


def test_the_patch_leaves_the_rest_of_a_clusters_configuration_alone(tmp_path: Path) -> None:
    shipped = captured.CAPTURED / "_config-shipped/core_configmaps_deployment.yaml"
    if not shipped.exists():
        pytest.skip(captured.MISSING)
    shutil.copy(shipped, tmp_path / "shipped.yaml")
    made = overlay(tmp_path, "resources: [shipped.yaml]\ncomponents: [patches/knative-config]\n")
    (real,) = documents(shipped)
    (patch,) = documents(PATCHES / "knative-config/config-deployment.yaml")
    assert made["ConfigMap", "config-deployment"]["data"] == real["data"] | patch["data"]


@pytest.mark.fz("FZ-121")
@pytest.mark.parametrize(
    ("component", "hierarchies"),
    [
        ("cgroupfs-driver", {"/sys/fs/cgroup/kubepods"}),
        ("cgroup-v1", {"/sys/fs/cgroup/freezer/kubepods.slice", "/sys/fs/cgroup/cpu,cpuacct/kubepods.slice"}),
        ("cgroup-v1-cgroupfs-driver", {"/sys/fs/cgroup/freezer/kubepods", "/sys/fs/cgroup/cpu,cpuacct/kubepods"}),
        ("no-host-pid", {"/sys/fs/cgroup/kubepods.slice"}),
    ],
)
def test_a_component_changes_what_its_name_says(tmp_path: Path, component: str, hierarchies: set[str]) -> None:
    made = overlay(tmp_path, f"resources: [patches/freezer]\ncomponents: [patches/components/{component}]\n")
    spec = made["DaemonSet", "queueproxy-freezer"]["spec"]["template"]["spec"]
    volumes = {each["name"]: each["hostPath"]["path"] for each in spec["volumes"] if "hostPath" in each}
    mounts = {each["name"]: each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
    cgroups = {name: path for name, path in volumes.items() if path.startswith("/sys/")}
    assert set(cgroups.values()) == hierarchies
    for name, path in cgroups.items():  # each shows up at the same place below the configured root
        assert mounts[name] == path.replace("/sys/fs/cgroup", config().cgroups)
    assert spec.get("hostPID", False) is (component != "no-host-pid")
    assert spec["containers"][0]["securityContext"] == container()["securityContext"]


def test_every_component_is_listed_and_told_of() -> None:
    assert sorted(path.name for path in (PATCHES / "components").iterdir()) == sorted(COMPONENTS)
    readme = (PATCHES / "README.md").read_text()
    assert all(f"components/{component}`" in readme for component in COMPONENTS)
