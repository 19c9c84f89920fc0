"""One run of an agent: the loop, its turns and tool calls, and what a run is told and becomes."""
