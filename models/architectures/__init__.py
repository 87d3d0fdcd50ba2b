"""Sharing architectures: how tasks share what they learn, one file each."""
