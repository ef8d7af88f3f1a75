"""Where a request went and how long it stayed: W3C trace context and spans."""
