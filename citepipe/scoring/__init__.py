"""ALCE's scores of answers, with intervals."""
