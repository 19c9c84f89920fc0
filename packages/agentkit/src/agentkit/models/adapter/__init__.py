"""Shared parts of the provider adapters: HTTP, JSON, server-sent events, usage, parts of requests and replies."""
