"""Examples and their documents: reading, writing, prompts, the training mixture."""
