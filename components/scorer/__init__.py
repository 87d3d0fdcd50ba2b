"""Writes the row-level predictions of an exported model."""
