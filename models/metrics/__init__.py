"""Exact NumPy metrics with cluster-resampled intervals, and the TFMA metric that emits them."""
