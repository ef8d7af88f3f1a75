"""Ticks every 100 ms on stdout and notes requests, on the machine's monotonic clock."""

import os
import threading
import time


def say(what: str) -> None:
    os.write(1, f"{what} {time.monotonic():.6f}\n".encode())  # one write: a line is whole, whoever else writes


def tick_for_ever() -> None:
    while True:
        say("tick")
        time.sleep(0.1)


def start() -> None:
    threading.Thread(target=tick_for_ever, daemon=True).start()
