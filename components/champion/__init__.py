"""Picks among the candidates that passed their gates."""
