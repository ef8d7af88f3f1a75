"""HTTP and protobuf, bytes on one side and calls on the other. Knows protocols, knows no sockets."""
