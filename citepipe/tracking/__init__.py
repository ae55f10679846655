"""Learning curves and sampled answers at Weights & Biases, beside the metrics files."""
