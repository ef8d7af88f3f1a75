"""The freezer's configuration file: what it means, and everything that is wrong with it at once."""

import re
from pathlib import Path

import pytest

from queueproxy.freeze.annotations import DEFAULTS, Liveness, Mode
from queueproxy.freeze.node.config import Address, ConfigError, Identity, Leases, load
from queueproxy.freeze.node.limits import Rate, Rates

PLAIN = "[listen]\nplain-http = true\n"
ROOT = Path(__file__).resolve().parents[3]
HERE = {"NODE_NAME": "node-1", "POD_UID": "0-0"}


def wrong(text: str, environ: dict[str, str] = HERE) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        load(text, environ)
    return refused.value.lines


def test_the_shortest_file_gives_the_documented_defaults() -> None:
    config = load(PLAIN, HERE)
    assert config.rules.node == "node-1" and config.rules.own_uid == "0-0" and "kube-system" in config.rules.deny
    assert config.listen.sidecars == Address("0.0.0.0", 9696) and config.listen.operators == Address("127.0.0.1", 9697)
    assert (config.listen.connections, config.listen.old_protocol) == (1024, True)
    assert config.defaults == DEFAULTS and config.leases == Leases(60.0, 60.0)
    assert config.identity == Identity("concurrency-state-hook", True, 300.0) and config.rates == Rates()
    assert (config.cgroups, config.journal, config.drain_s) == ("/sys/fs/cgroup", "/run/queueproxy-freezer", 10.0)
    assert config.notes == ("listen.plain-http: tokens cross the node unencrypted (T-07)",)


FULL = """
node = "other"
journal = "/run/elsewhere"
drain = "3s"
[listen]
sidecars = "[::]:1234"
operators = "unix:/run/freezer.sock"
certificate = "/tls/tls.crt"
key = "/tls/tls.key"
connections = 64
per-source = 2
old-protocol = false
[defaults]
freeze = "throttle"
freeze-after = "750ms"
throttle-after = "off"
min-uptime = "0"
liveness = "throttle"
containers = "web, worker"
[leases]
longest = "20s"
[identity]
audience = "freezer"
check-peer = false
cache = "1m"
[rates]
pod = 1
source = 2.5
everyone = 300
unproven = 0.1
[namespaces]
allow = ["team-a"]
deny = []
[kubernetes]
kubeconfig = "/etc/kubeconfig"
[cgroups]
root = "/host/cgroup"
kubepods = ["k8s/kubepods"]
proc = "/host/proc"
[log]
level = "debug"
"""


@pytest.mark.fz("FZ-127", "FZ-128", "FZ-133")
def test_every_setting_is_read() -> None:
    config = load(FULL, HERE)
    assert (config.rules.node, config.rules.allow, config.rules.deny) == ("other", {"team-a"}, frozenset())
    assert config.listen.sidecars == Address("::", 1234) and str(config.listen.sidecars) == "[::]:1234"
    assert config.listen.operators == Address("", 0, "/run/freezer.sock")
    assert config.listen[2:] == ("/tls/tls.crt", "/tls/tls.key", 64, 2, False)
    assert config.defaults[:6] == (Mode.THROTTLE, 0.75, None, 0.0, Liveness.THROTTLE, ("web", "worker"))
    assert config.leases == Leases(20.0, 20.0), "the old protocol's lease stays under the longest"
    assert config.identity == Identity("freezer", False, 60.0)
    assert config.rates == Rates(Rate(1, 2), Rate(2.5, 5), Rate(300, 600), Rate(0.1, 1))
    assert (config.kubeconfig, config.cgroups, config.proc) == ("/etc/kubeconfig", "/host/cgroup", "/host/proc")
    assert config.kubepods == ("k8s/kubepods",)
    assert (config.journal, config.drain_s, config.log_level) == ("/run/elsewhere", 3.0, "debug")
    assert config.notes == ("identity.check-peer is off: a token may be used from any address (T-05)",)


@pytest.mark.fz("FZ-078")
def test_a_kubelets_cgroup_root_is_enough_to_find_its_pods() -> None:
    config = load(PLAIN + "[cgroups]\ncgroup-root = '/k8s/node-1'\n", HERE)
    assert config.kubepods == ("k8s.slice/k8s-node_1.slice/k8s-node_1-kubepods.slice", "k8s/node-1/kubepods")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node = ", "not TOML: "),
        ("nod = 'x'\n" + PLAIN, "nod: no such setting"),
        ("listen = 3", "listen: no such setting"),
        (PLAIN + "[namespace]\ndeny = []", "namespace.deny: no such setting"),
        (PLAIN + "[a.b]\nc = 1", "a.b: no such setting"),
        (PLAIN + "sidecars = 9696", "listen.sidecars: 9696 is not text in quotes"),
        (PLAIN + "sidecars = ':9696'", "listen.sidecars: ':9696' is not an address like"),
        (PLAIN + "sidecars = '::1:9696'", "an IPv6 host goes into brackets"),
        (PLAIN + "sidecars = 'h:99999'", "listen.sidecars: 'h:99999' is not an address"),
        (PLAIN + "connections = 0", "listen.connections: 0 is not between 1 and 65535"),
        (PLAIN + "connections = true", "listen.connections: True is not a whole number"),
        (PLAIN + "connections = 1.5", "listen.connections: 1.5 is not a whole number"),
        (PLAIN + "[leases]\nlongest = '1h'", "leases.longest: 3600 is not between 1 and 60 seconds"),
        (PLAIN + "[leases]\nlongest = 'soon'", "leases.longest: 'soon' is not a duration"),
        (PLAIN + "[defaults]\nfreeze-after = 2", "defaults.freeze-after: 2 is not text in quotes"),
        (PLAIN + "[defaults]\nfreeze = 'perhaps'", "defaults.freeze: 'perhaps' is not one of on, off"),
        (PLAIN + "[defaults]\nfrozen = 'on'", "defaults.frozen is not known"),
        (PLAIN + "[identity]\naudience = ''", "identity.audience: empty"),
        (PLAIN + "[namespaces]\ndeny = 'kube-system'", "namespaces.deny: 'kube-system' is not a list of names"),
        (PLAIN + "[cgroups]\nroot = 'cgroup'", "cgroups.root: 'cgroup' is not an absolute path"),
        (PLAIN + "[cgroups]\nkubepods = ['../x']", "cgroups.kubepods: ['../x'] is not a list of directories"),
        (PLAIN + "[cgroups]\nkubepods = ['/x']", "cgroups.kubepods: ['/x'] is not a list of directories"),
        (PLAIN + "[cgroups]\ncgroup-root = 'kubelet'", "cgroups.cgroup-root: 'kubelet' is not an absolute path"),
        (PLAIN + "[cgroups]\ncgroup-root = '/a/../b'", "cgroups.cgroup-root: '/a/../b' is not a kubelet's"),
        (PLAIN + "[cgroups]\ncgroup-root = '/a'\nkubepods = ['a/kubepods']", "cgroups: cgroup-root says where"),
        (PLAIN + "[rates]\npod = 0", "rates.pod: 0 is not between 0.1 and 1e+06"),
        (PLAIN + "[rates]\npod = '9'", "rates.pod: '9' is not a number"),
        (PLAIN + "[log]\nlevel = 'loud'", "log.level: 'loud' is not one of debug, info, warn, error"),
        (PLAIN + "sidecars = 'unix:/run/s'", "listen: plain-http = true contradicts"),
        ("[listen]\nsidecars = 'unix:/run/s'", "identity.check-peer: a Unix socket has no peer address"),
        ("[listen]\ncertificate = '/c'", "listen: certificate and key go together"),
        (PLAIN + "operators = '0.0.0.0:9696'", "listen: sidecars and operators cannot share an address"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_settings_name(text: str, said: str) -> None:
    lines = wrong(text)
    assert any(said in line for line in lines), lines


@pytest.mark.fz("FZ-133")
def test_plain_http_is_never_the_default() -> None:
    assert wrong("") == ("listen: give certificate and key, a Unix socket, or say plain-http = true",)


def test_everything_wrong_is_said_at_once() -> None:
    lines = wrong("drain = 'x'\njournal = 'y'\nz = 1", {})
    assert [line.partition(":")[0] for line in lines] == ["listen", "journal", "drain", "node", "z"]


@pytest.mark.parametrize("environ", [pytest.param({}, id="unset"), pytest.param({"NODE_NAME": ""}, id="empty")])
def test_a_freezer_that_does_not_know_its_node_does_not_start(environ: dict[str, str]) -> None:
    assert wrong(PLAIN, environ) == ("node: missing, and NODE_NAME is not in the environment",)


def test_an_operators_port_for_everybody_is_allowed_and_noted() -> None:
    notes = load(PLAIN + "operators = '0.0.0.0:9697'", HERE).notes
    assert any("change nothing" in note for note in notes)


def test_the_example_in_the_documentation_is_complete_and_valid() -> None:
    document = (ROOT / "docs" / "operations.md").read_text()
    example = re.search(r"```toml\n(.*?)```", document, re.S)
    assert example is not None
    assert load(example[1], HERE) == load(PLAIN, HERE), "it shows the defaults"
    shown = set(re.findall(r"^(?:# )?([a-z-]+) = ", example[1], re.M))
    source = (ROOT / "queueproxy/freeze/node/config.py").read_text()
    known = set(re.findall(r'read\.[a-z_]+\(\s*"(?:[a-z]+\.)?([a-z-]+)"', source))
    assert len(known) > 20 and known - {"defaults"} <= shown, "and every setting there is"
