"""The one place that reads the clock. `monotonic()` is seconds; pure modules receive the result as `now`."""

from time import monotonic

__all__ = ["monotonic"]
