"""gRPC contract in Python: its messages, and their conversion to the JSON of :mod:`ops_core.schemas`."""
