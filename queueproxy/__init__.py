"""Drop-in queue-proxy for Knative that puts idle containers to sleep. Imports nothing; see docs/architecture.md."""

__version__ = "0.1.0"
