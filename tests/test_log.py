"""The process log: what a line looks like, and that nobody ever waits for whoever should read it."""

import fcntl
import json
import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy import log as log_module
from queueproxy.log import JSON, PLAIN, Format, Level, LineWriter, Log, settings

WALL_NS = 1_795_347_502_007_000_009  # 2026-11-22T11:38:22.007000009Z


class Pipe:
    """A real pipe of one page, so that a few lines fill it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        self._writers: list[LineWriter] = []

    def line_writer(self) -> LineWriter:
        self._writers.append(LineWriter(self.writer))
        return self._writers[-1]

    def close(self) -> None:
        # The reader first: a thread that still has lines gets EPIPE and comes to rest. Only then may the descriptor
        # close, or the thread would write into whatever is opened next under the same number.
        os.close(self.reader)
        assert all(writer.flush(10.0) for writer in self._writers)
        os.close(self.writer)

    def fill(self) -> int:
        """Makes it full; returns how many bytes that took."""
        os.set_blocking(self.writer, False)
        size = 0
        try:
            while True:
                size += os.write(self.writer, b"#" * 4095 + b"\n")
        except BlockingIOError:
            pass
        os.set_blocking(self.writer, True)
        return size

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += os.read(self.reader, size - len(data))
        return data

    def lines(self, count: int) -> list[dict[str, object]]:
        data = b""
        while data.count(b"\n") < count:
            data += os.read(self.reader, 65536)
        return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.mark.qp("QP-307")
def test_a_line_carries_what_zap_carries(pipe: Pipe) -> None:
    log = Log(pipe.line_writer()).with_(**{"knative.dev/key": "ns/rev", "knative.dev/pod": "pod"})
    log.info("Starting queue-proxy", port=8012)
    (line,) = pipe.lines(1)
    stamp = line.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", str(stamp))
    assert list(line.items()) == [
        ("severity", "INFO"),
        ("logger", "queueproxy"),
        ("message", "Starting queue-proxy"),
        ("knative.dev/key", "ns/rev"),
        ("knative.dev/pod", "pod"),
        ("port", 8012),
    ]


@pytest.mark.qp("QP-307")
def test_the_stamp_is_utc_with_nanoseconds() -> None:
    assert json.loads(JSON.encode(Level.INFO, "m", {}, WALL_NS))["timestamp"] == "2026-11-22T11:38:22.007000009Z"


@pytest.mark.qp("QP-307")
def test_every_severity_has_its_name(pipe: Pipe) -> None:
    log = Log(pipe.line_writer(), level=Level.DEBUG)
    for say in (log.debug, log.info, log.warning, log.error, log.critical, log.emergency):
        say("x")
    assert [line["severity"] for line in pipe.lines(6)] == [
        "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "EMERGENCY",
    ]  # fmt: skip


def test_what_is_below_the_threshold_is_not_written(pipe: Pipe) -> None:
    log = Log(pipe.line_writer(), level=Level.WARNING)
    assert not log.debug_on
    log.debug("no")
    log.info("no")
    log.warning("yes")
    assert [line["message"] for line in pipe.lines(1)] == ["yes"]


def test_fields_cannot_overwrite_the_frame(pipe: Pipe) -> None:
    Log(pipe.line_writer()).info("true", message="false", severity="FATAL", error=OSError(2, "gone"))
    (line,) = pipe.lines(1)
    assert (line["message"], line["severity"], line["error"]) == ("true", "INFO", "[Errno 2] gone")


@pytest.mark.parametrize(
    "value",
    ["a\nb\x00\x1b[31m", 'say "hi"', "é😀", "stray \udcff byte", float("nan"), {1, 2}, {"a": object()}, None, b"x"],
    ids=["control", "quotes", "unicode", "surrogate", "nan", "set", "nested", "none", "bytes"],
)
def test_any_value_stays_one_line_of_json(value: object) -> None:
    line = JSON.encode(Level.ERROR, "m", {"value": value, "kept": 1}, WALL_NS)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert json.loads(line)["kept"] == 1


@pytest.mark.parametrize(
    "letter", ["x", "é", "\x00", "😀", "\udcff"], ids=["ascii", "two bytes", "escaped", "four", "stray"]
)
@pytest.mark.parametrize("format", [JSON, PLAIN, Format(console=True)], ids=["json", "plain", "console"])
def test_a_long_line_is_shortened_to_what_a_pipe_takes_at_once(format: Format, letter: str) -> None:
    fields = {"error": letter * 9000, "url": letter * 9000, "port": 80} | {f"key{n}": letter * 50 for n in range(20)}
    line = format.encode(Level.ERROR, letter * 9000, fields, WALL_NS)
    assert len(line) <= select.PIPE_BUF
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    if format is JSON:
        assert json.loads(line)["truncated"] is True


def test_a_short_line_is_left_whole() -> None:
    assert "truncated" not in json.loads(JSON.encode(Level.INFO, "x" * 3000, {}, WALL_NS))


def test_plain_lines_are_for_people() -> None:
    line = PLAIN.encode(Level.WARNING, "app sleeps", {"after": 1.0, "why": "no requests", "left": 0, "e": ""}, WALL_NS)
    assert re.fullmatch(rb'\d\d:\d\d:\d\d warning app sleeps after=1 why="no requests" left=0 e=""\n', line)


def test_plain_lines_give_the_terminal_no_orders() -> None:
    assert b"\x1b" not in PLAIN.encode(Level.INFO, "\x1b[2J", {"x": "\x1b]0;t\x07"}, WALL_NS)


@pytest.mark.qp("QP-354")
def test_a_reader_that_does_not_read_never_stops_the_caller(pipe: Pipe) -> None:
    size = pipe.fill()
    writer = pipe.line_writer()
    log = Log(writer)
    log.info("waits its turn")
    assert repr(writer).startswith(f"<LineWriter fd={pipe.writer} queued=")
    log.info("so does this")
    pipe.read(size)
    assert [line["message"] for line in pipe.lines(2)] == ["waits its turn", "so does this"]
    assert writer.flush(5.0)


@pytest.mark.slow
@pytest.mark.qp("QP-354")
def test_lines_without_room_are_lost_and_the_next_one_says_how_many(pipe: Pipe) -> None:
    size = pipe.fill()
    writer = pipe.line_writer()
    log = Log(writer)
    lost = 0
    written = 0
    while lost < 5:
        written += 1
        log.info(f"line {written}")  # a message each, or sampling would thin them out
        lost = writer.lost
    drain = threading.Thread(target=lambda: received.extend(pipe.lines(written - lost)))
    received: list[dict[str, object]] = []
    pipe.read(size)
    drain.start()
    drain.join(20.0)
    assert not drain.is_alive()
    assert [line["message"] for line in received] == [f"line {n}" for n in range(1, written - lost + 1)]
    assert writer.flush(5.0)
    log.info("room again")
    log.info("all told")
    told, after = pipe.lines(2)
    assert (told["message"], told["droppedLines"]) == ("room again", 5)
    assert "droppedLines" not in after
    assert writer.lost == 0


@pytest.mark.qp("QP-354")
def test_the_shared_descriptor_stays_blocking(pipe: Pipe) -> None:
    # O_NONBLOCK sits on the open file, which other processes share.
    pipe.fill()
    Log(pipe.line_writer()).info("x")
    assert os.get_blocking(pipe.writer)


@pytest.mark.qp("QP-354")
def test_a_descriptor_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    size = pipe.fill()
    os.set_blocking(pipe.writer, False)
    log = Log(pipe.line_writer())
    log.info("kept")
    pipe.read(size)
    assert [line["message"] for line in pipe.lines(1)] == ["kept"]


def test_no_thread_is_started_while_the_reader_keeps_up(pipe: Pipe) -> None:
    before = threading.active_count()
    log = Log(pipe.line_writer())
    for n in range(50):
        log.info(f"line {n}")
        pipe.lines(1)
    assert threading.active_count() == before


def test_a_reader_that_left_is_no_error(pipe: Pipe) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = Log(LineWriter(writer))
    log.info("nobody hears")
    log.close()
    os.close(writer)


@pytest.mark.qp("QP-354")
def test_closing_waits_for_the_queue_but_not_for_ever(pipe: Pipe) -> None:
    size = pipe.fill()
    writer = pipe.line_writer()
    Log(writer).info("last words")
    assert not writer.flush(0.01)
    pipe.read(size)
    assert writer.flush(5.0)
    assert pipe.lines(1)[0]["message"] == "last words"


@pytest.mark.slow
@pytest.mark.qp("QP-354")
def test_a_process_whose_stderr_is_full_still_ends(pipe: Pipe) -> None:
    pipe.fill()
    program = (
        "from queueproxy.log import Log, LineWriter\n"
        "log = Log(LineWriter(2))\n"
        "for n in range(5000): log.error(f'line {n}')\n"
        "log.close()\n"
        "print('done')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        stderr=pipe.writer, stdout=subprocess.PIPE, timeout=30, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (0, b"done\n")


def test_one_message_in_a_storm_is_sampled(pipe: Pipe) -> None:
    fcntl.fcntl(pipe.writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    seen: list[int] = []
    encode = Format.encode

    class Counting(Format):
        def encode(self, level: Level, message: str, fields: object, wall_ns: int) -> bytes:  # type: ignore[override]
            seen.append(wall_ns // 1_000_000_000)
            return encode(self, level, message, {}, wall_ns)

    log = Log(pipe.line_writer(), format=Counting())
    for _ in range(1000):
        log.error("same")
    # The first hundred and every hundredth after, anew in each second the loop saw.
    seconds = len(set(seen))
    assert 109 - seconds <= len(seen) <= 109 * seconds
    for n in range(200):
        log.error(f"different {n}")
    assert len(seen) >= 300


@pytest.mark.qp("QP-308")
@pytest.mark.parametrize(
    ("sampling", "written"),
    [({"initial": 2, "thereafter": 3}, 5), ({"initial": 2}, 2), (None, 11)],
    ids=["both", "nothing after", "off"],
)
def test_sampling_is_what_zap_was_told(pipe: Pipe, sampling: object, written: int) -> None:
    format, *_ = settings(json.dumps({"sampling": sampling}), "")
    sample = log_module._Sample(format.sampling)
    assert sum(sample.passes(Level.INFO, "m", WALL_NS) for _ in range(11)) == written


@pytest.mark.qp("QP-354")
def test_a_line_longer_than_a_pipe_takes_does_not_stop_the_caller(pipe: Pipe) -> None:
    writer = pipe.line_writer()
    long = b"x" * 20_000 + b"\n"
    assert writer.write(b"before\n") and writer.write(long) and writer.write(b"after\n")
    assert pipe.read(20_014) == b"before\n" + long + b"after\n"
    assert writer.flush(5.0)


@pytest.mark.qp("QP-354")
def test_what_waits_is_bounded_in_bytes_and_what_is_lost_in_lines(pipe: Pipe) -> None:
    size = pipe.fill()
    writer = pipe.line_writer()
    piece = b"y" * 4094 + b"\n\n"
    accepted = 0
    while writer.write(piece, 2):
        accepted += 1
    assert accepted == (1 << 20) // len(piece) and writer.lost == 2
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read(size + accepted * len(piece))))
    reader.start()
    reader.join(20.0)
    assert received[0][size:] == piece * accepted
    assert writer.flush(5.0) and writer.write(piece, 2)


@pytest.mark.qp("QP-308", "QP-309")
def test_nothing_configured_is_knatives_default() -> None:
    assert settings("", "") == (JSON, Level.INFO, 2, "")


@pytest.mark.qp("QP-308")
def test_the_example_of_config_logging() -> None:
    example = {
        "level": "info", "outputPaths": ["stdout"], "encoding": "json",
        "encoderConfig": {
            "timeKey": "timestamp", "levelKey": "severity", "nameKey": "logger", "callerKey": "caller",
            "messageKey": "message", "lineEnding": "", "levelEncoder": "", "timeEncoder": "iso8601",
        },
    }  # fmt: skip
    format, level, fd, warning = settings(json.dumps(example), "")
    assert (level, fd, warning) == (Level.INFO, 1, "")
    line = json.loads(format.encode(Level.INFO, "m", {}, WALL_NS))
    assert line == {"severity": "info", "timestamp": "2026-11-22T11:38:22.007Z", "logger": "queueproxy", "message": "m"}


@pytest.mark.qp("QP-308")
@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ({"levelEncoder": "capital"}, {"severity": "WARN"}),
        ({"levelEncoder": "lowercase"}, {"severity": "warn"}),
        ({"levelKey": "l", "messageKey": "msg", "nameKey": ""}, {"l": "WARNING", "msg": "m"}),
        ({"levelEncoder": "capitalColor"}, {"severity": "\x1b[33mWARN\x1b[0m"}),
        ({"levelEncoder": "color"}, {"severity": "\x1b[33mwarn\x1b[0m"}),
        ({"timeEncoder": "rfc3339"}, {"timestamp": "2026-11-22T11:38:22Z"}),
        ({"timeEncoder": "nanos"}, {"timestamp": WALL_NS}),
        ({"timeEncoder": "millis"}, {"timestamp": WALL_NS / 1e6}),
        ({"timeEncoder": ""}, {"timestamp": WALL_NS / 1e9}),
        ({"timeKey": 7}, {"severity": "WARNING"}),
    ],
    ids=lambda value: ",".join(map(str, value)),
)
def test_an_encoder_setting_shows_in_the_line(encoder: dict[str, object], expected: dict[str, object]) -> None:
    format, _, _, warning = settings(json.dumps({"encoderConfig": encoder}), "")
    line = json.loads(format.encode(Level.WARNING, "m", {}, WALL_NS))
    assert warning == "" and line.items() >= expected.items()
    assert ("logger" in line) == (encoder.get("nameKey") != "")


@pytest.mark.qp("QP-308")
def test_console_encoding_is_tab_separated() -> None:
    format, *_ = settings('{"encoding":"console","encoderConfig":{"timeEncoder":"rfc3339"}}', "")
    line = format.encode(Level.INFO, "m", {"a": 1}, WALL_NS)
    assert line == b'2026-11-22T11:38:22Z\tINFO\tqueueproxy\tm\t{"a":1}\n'


@pytest.mark.qp("QP-308")
@pytest.mark.parametrize(
    ("config", "level", "expected"),
    [
        ("", "debug", Level.DEBUG), ("", "DEBUG", Level.DEBUG), ("", "warn", Level.WARNING),
        ("", "error", Level.ERROR), ("", "dpanic", Level.CRITICAL), ("", "fatal", Level.EMERGENCY),
        ("", "loud", Level.INFO), ('{"level":"error"}', "", Level.ERROR), ('{"level":"error"}', "debug", Level.DEBUG),
        ('{"level":"error"}', "nonsense", Level.ERROR), ('{"level":7}', "", Level.INFO),
    ],
)  # fmt: skip
def test_the_level_variable_wins_when_it_is_one(config: str, level: str, expected: Level) -> None:
    assert settings(config, level)[1] is expected


@pytest.mark.qp("QP-309")
@pytest.mark.parametrize(
    "config",
    [
        "{", "[]", "7", "[" * 100_000, '"x"', '{"level":"loud"}', '{"level":7}', '{"encoding":"xml"}', '{"encoding":7}',
        '{"sampling":1}', '{"sampling":{"initial":-1}}', '{"sampling":{"thereafter":"x"}}',
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_a_broken_configuration_costs_a_warning_only(config: str) -> None:
    format, level, fd, warning = settings(config, "debug")
    assert (format.name, level, fd) == ("fallback-logger.queueproxy", Level.DEBUG, 2)
    assert warning.startswith("failed to parse SERVING_LOGGING_CONFIG")


def test_the_log_says_what_it_is() -> None:
    writer = LineWriter(2)
    assert repr(Log(writer, {"a": 1})) == f"<Log INFO {{'a': 1}} {writer!r}>"
