"""Pushes a model atomically into a TF Serving base path."""
