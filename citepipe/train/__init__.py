"""Training: supervised fine-tuning, and token-level PPO."""
