"""The user path: connections in, one Exchange per request, connections to the app."""
