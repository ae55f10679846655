"""citepipe: train language models to cite well, and measure how well they cite."""

__version__ = "0.2.0"
