"""Documents for questions that come without any: BM25 over a user's own texts."""
