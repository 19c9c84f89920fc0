"""OAuth of MCP servers: the flow, the tokens and their folder, and the login through a browser on this machine."""
