"""Processes of the platform: the server, a worker, the supervisor of several workers, and their event loop."""
