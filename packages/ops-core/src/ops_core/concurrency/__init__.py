"""Concurrency helpers: jitter for periodic waits, work beside the event loop, graceful shutdown."""
