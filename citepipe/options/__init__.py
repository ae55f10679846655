"""Typed options, one small module per stage, so that a stage depends on its own options only."""
