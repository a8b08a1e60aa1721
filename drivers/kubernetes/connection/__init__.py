"""The way to a cluster's API: the client, whose its user is, its errors, and what goes over a WebSocket."""
