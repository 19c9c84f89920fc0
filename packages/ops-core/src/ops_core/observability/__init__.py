"""Observability: logs, metrics, gauges of the store, and redaction of what is shown."""
