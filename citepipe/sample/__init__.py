"""Rejection sampling: answers drawn from a model, chosen by their rewards."""
