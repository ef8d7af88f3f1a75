"""The part that touches cgroups: holds, freezes, throttles and observes them. The sidecar never imports it."""
