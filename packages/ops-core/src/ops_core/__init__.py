"""ops_core: the platform that carries agents to their end."""
