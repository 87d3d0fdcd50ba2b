"""TFX's Transform with batches of a fixed size."""
