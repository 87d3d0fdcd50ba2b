"""Runners: each holds only what is particular to it."""
