"""The one engine of scores, rewards and search: what is supported, right, and hit."""
