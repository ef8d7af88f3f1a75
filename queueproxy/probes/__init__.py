"""Is the user container well? Decodes SERVING_READINESS_PROBE and runs it."""
