"""How tasks are weighed against each other while training."""
