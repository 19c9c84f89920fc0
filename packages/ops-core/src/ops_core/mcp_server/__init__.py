"""Agents as tools of an MCP server: over standard streams and over HTTP, with durable tasks.

Needs the extra ``opspawn[mcp]``.
"""
