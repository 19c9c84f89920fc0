"""ops_core: the platform that carries agents to their end."""

__version__ = "0.1.0"
