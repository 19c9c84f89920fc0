"""Contract of a store: one suite for every implementation."""
