"""The only room that opens sockets: listening, dialling, asking the kernel about sockets."""
