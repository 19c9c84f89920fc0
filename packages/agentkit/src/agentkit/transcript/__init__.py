"""Transcript of a run: its steps, their stored form, the journals that keep them, and the usage they add up to."""
