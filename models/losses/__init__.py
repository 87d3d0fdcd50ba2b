"""Losses: what a head's outputs mean, one file each."""
