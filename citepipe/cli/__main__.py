"""`python -m citepipe.cli`."""

import sys

from citepipe.cli import main

sys.exit(main())
