"""May this request start? Slots, a queue, and who is next."""
