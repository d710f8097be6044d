"""The template: one process per generation that imports the handlers once and forks workers."""
