"""Run of an agent: the loop, its turns and tool calls, its control and its outcome."""
