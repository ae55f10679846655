"""Generators: prompts in, completions out with token ids, log-probabilities and offsets."""
