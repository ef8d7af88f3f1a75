"""Runs one target under atheris: `python -m tests.fuzz request -max_total_time=60 CORPUS…`. See docs/fuzzing.md.

The only file that imports atheris; the replay in the ordinary test run does not need it.
"""

import importlib
import sys

import atheris

TARGETS = ("request", "response", "chunked")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(TARGETS)}}} [libFuzzer options] [corpus directories]")
    with atheris.instrument_imports(include=["queueproxy", "tests.fuzz"]):
        target = importlib.import_module(f"tests.fuzz.fuzz_{sys.argv[1]}")
    atheris.Setup([f"fuzz_{sys.argv[1]}", *sys.argv[2:]], target.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
