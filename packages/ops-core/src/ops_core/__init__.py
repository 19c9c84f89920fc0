"""ops_core: the platform that runs agents durably."""

__version__ = "0.1.0"
