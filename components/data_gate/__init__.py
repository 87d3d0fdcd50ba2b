"""Refuses data that no model should be trained on."""
