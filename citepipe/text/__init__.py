"""Text of answers: normalisation, sentences, statements and citations with character spans."""
