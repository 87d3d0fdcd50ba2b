"""Derives the schema from the configuration."""
