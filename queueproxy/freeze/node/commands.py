"""Runs the command lines of the node: flags of `freezer`, `status` and `doctor`, their help texts and exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final, NoReturn, TextIO

from queueproxy.freeze.node.config import Address, ConfigError, NodeConfig, load, parse_address

__all__ = ["doctor_main", "freezer_main", "status_main", "thaw_node"]

EX_USAGE: Final = 64  # bad configuration, as everywhere in this package
CONFIG: Final = "/etc/queueproxy/freezer.toml"
OPERATORS: Final = Address("127.0.0.1", 9697)

_FREEZER = """\
The node's freezer: one per node, the only part of queueproxy that touches cgroups of pods.
Sidecars ask it on port 9696 to freeze and thaw their own pod; whatever happens, everything
it froze runs again."""

_FREEZER_END = """\
signals: SIGTERM thaws everybody and ends; what a SIGKILL leaves asleep, the next freezer
adopts, and `queueproxy thaw-all` thaws without one.

exit status: 0 after an orderly stop, 1 when something stayed asleep or could not be opened,
64 for a wrong configuration."""

_STATUS = """\
The pods of this node: state, since when, how often woken, time asleep, CPU saved (an
estimate: the CPU used while idle before falling asleep, times the time asleep), why, and
the latest changes."""

_STATUS_END = "exit status: 0, 1 when no freezer answers, 64 for wrong flags."

_DOCTOR = """\
Say what this node can do: cgroup version, freezer, cpu controller, kubepods directory, runtimes,
permissions, and for each what it means and what to do. Changes nothing, needs no running
freezer; run it in the freezer's own container to see what the freezer sees."""

_DOCTOR_END = "exit status: 0 fit, 1 not fit, 2 could not look, 64 for wrong flags."


class _Parser(argparse.ArgumentParser):
    def __init__(self, name: str, text: str, end: str) -> None:
        super().__init__(
            prog=f"queueproxy {name}",
            description=text,
            epilog=end,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(EX_USAGE, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def freezer_main(argv: list[str]) -> int:
    """`queueproxy freezer`."""
    parser = _Parser("freezer", _FREEZER, _FREEZER_END)
    parser.add_argument("--config", default=CONFIG, metavar="FILE", help=f"TOML (default {CONFIG})")
    parser.add_argument("--check", action="store_true", help="only read the configuration and say what is wrong")
    flags = parser.parse_args(argv)
    from queueproxy.freeze.node.app import freeze_node

    return freeze_node(flags.config, os.environ, check=flags.check)


def status_main(argv: list[str]) -> int:
    """`queueproxy status`."""
    parser = _Parser("status", _STATUS, _STATUS_END)
    parser.add_argument("--watch", action="store_true", help="draw the table anew every second until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="one JSON object; with --watch, one per second")
    _add_address(parser)
    flags = parser.parse_args(argv)
    if flags.watch and not flags.json and not sys.stdout.isatty():
        parser.error("--watch draws on a terminal; use --json, or leave --watch out")
    from queueproxy.freeze.node.status import status

    return status(_address(flags), sys.stdout, sys.stderr, as_json=flags.json, watch=flags.watch)


def doctor_main(argv: list[str]) -> int:
    """`queueproxy doctor`."""
    parser = _Parser("doctor", _DOCTOR, _DOCTOR_END)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--config", default="", metavar="FILE", help="look where this freezer would")
    flags = parser.parse_args(argv)
    from queueproxy.freeze.node.doctor import doctor
    from queueproxy.freeze.node.fitness import Node

    node = Node()
    if flags.config:
        config = _config(parser, flags.config)
        node = node._replace(cgroups=config.cgroups, kubepods=config.kubepods, journal=config.journal)
    return doctor(node, sys.stdout, as_json=flags.json)


def thaw_node(config_path: str, out: TextIO, *, as_json: bool, force: bool) -> int:
    """The node's part of `queueproxy thaw-all`: how many pods are still frozen. Without a configuration file, where a
    freezer would be by default; exits with 64 when there is one and it is wrong."""
    from queueproxy.freeze.node.fitness import Node
    from queueproxy.freeze.node.rescue import Place, rescue

    path = config_path or (CONFIG if os.path.exists(CONFIG) else "")
    if path:
        config = _config(_Parser("thaw-all", "", ""), path)
        place = Place(_callable(config.listen.operators), config.journal, config.cgroups, config.kubepods, config.proc)
    else:
        node = Node()
        place = Place(OPERATORS, node.journal, node.cgroups, node.kubepods)
    return rescue(place, out, as_json=as_json, force=force)


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--operators",
        type=_address_argument,
        metavar="ADDRESS",
        help=f"the freezer's operators' port (default: of --config, else {OPERATORS})",
    )
    parser.add_argument("--config", default="", metavar="FILE", help="the freezer's configuration")


def _address_argument(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None


def _address(flags: argparse.Namespace) -> Address:
    """Where the freezer of this node listens for operators."""
    if flags.operators is not None:
        found: Address = flags.operators
        return found
    path = flags.config or (CONFIG if os.path.exists(CONFIG) else "")
    if not path:
        return OPERATORS
    return _callable(_config(_Parser("status", "", ""), path).listen.operators)


def _callable(address: Address) -> Address:
    """ "Everywhere" is no place to call."""
    return address._replace(host={"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host))


def _config(parser: argparse.ArgumentParser, path: str) -> NodeConfig:
    try:
        with open(path, encoding="utf-8") as file:
            return load(file.read(), {"NODE_NAME": "this node", **os.environ})
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"{path}: {error}")
    except ConfigError as error:
        parser.error("; ".join(error.lines))
