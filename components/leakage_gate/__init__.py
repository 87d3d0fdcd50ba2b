"""Refuses examples and models that see what a ranking request cannot know."""
