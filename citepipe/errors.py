"""The one exception that stands for a user's mistake."""


class InputError(Exception):
    """Bad input: one line that names the file, the record and the field, and what was expected.

    Command line and workflow scripts print the message and exit with status 1; they show no
    traceback for it.
    """
