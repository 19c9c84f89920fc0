"""Sandbox backends: in this process, in a pool of confined children, in a jail."""
