"""The single source of truth: columns, features, tasks, metrics and errors, without TensorFlow."""
