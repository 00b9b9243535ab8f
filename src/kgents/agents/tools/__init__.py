"""The tools that agents call: built in, and of MCP servers; all of their traffic leaves through one guarded door."""
