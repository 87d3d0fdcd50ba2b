"""Starts a real server on the exported models and compares its answers with the predictions."""
