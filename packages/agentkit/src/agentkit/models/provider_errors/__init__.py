"""Errors of providers: read from their bodies, classified as errors of this library, and quoted without secrets."""
