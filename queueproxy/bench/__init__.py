"""`queueproxy bench`: CPU per request, latency, memory and wake time, beside a peer."""
