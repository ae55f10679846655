"""Examples and their documents: reading, writing, prompts, the training mixture."""

from citepipe.data.example import DATASETS, Document, Example, QAPair

__all__ = ["DATASETS", "Document", "Example", "QAPair"]
