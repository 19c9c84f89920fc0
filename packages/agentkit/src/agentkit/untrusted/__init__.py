"""Untrusted input: text, JSON, schemas, secrets and code from outside of this library."""
