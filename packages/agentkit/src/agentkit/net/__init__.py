"""Guarded network access: an HTTP client that connects to checked addresses only, host rules, and header rules."""
