"""Output for people: the screen, lines of steps, live view, tables, and prompts."""
