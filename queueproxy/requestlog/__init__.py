"""The request log: a Go template, compiled once, that turns each finished request into one line on stdout."""
