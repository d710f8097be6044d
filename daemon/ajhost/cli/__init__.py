"""The commands. Each has a module of its name; the others are what several of them share."""
