"""ALCE's scores of answers, with intervals."""

from citepipe import is_called

is_called(__name__)
