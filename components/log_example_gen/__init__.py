"""Reads raw logs, joins them in time, computes as-of features and writes training examples."""
