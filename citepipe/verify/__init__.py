"""Verifiers: does a premise entail a hypothesis? Batched, deduplicated, cached."""
