"""`python -m citepipe.cli`, the same as the command `citepipe`."""

from citepipe.cli import run

raise SystemExit(run())
