"""OpenAI and compatible servers: the client, Chat Completions, and Responses."""
