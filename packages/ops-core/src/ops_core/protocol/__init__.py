"""The contract of gRPC in Python: its messages, and what they mean in the JSON we speak (:mod:`ops_core.schemas`)."""
