"""The one exception that stands for a user's mistake, and the line on what is not installed."""


class InputError(Exception):
    """Bad input: one line that names the file, the record and the field, and what was expected.

    Command line and workflow scripts print the message and exit with status 1; they show no
    traceback for it. Of a name or value with several lines it shows their ends as `\\n`.
    """

    def __str__(self) -> str:
        return "\\n".join(super().__str__().splitlines())


def not_installed(error: ModuleNotFoundError) -> str | None:
    """One line that names the extra of this package that a module belongs to, if it is in one."""
    import re
    from importlib.metadata import requires

    name = (error.name or "").partition(".")[0]
    package = re.escape(name.replace("_", "-"))
    for line in requires("citepipe") or ():
        if found := re.fullmatch(rf'(?:py)?{package}\b.*extra == "(\w+)"', line):
            return f"{name} is not installed; run `pip install 'citepipe[{found[1]}]'`"
    return None
