"""Anthropic: the client, the Messages wire, and typed output."""
