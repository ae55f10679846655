"""The one place that loads tokenizers, base models and adapters."""

import logging

# Wherever bitsandbytes is installed it says that it lacks a kernel that nothing here asks for.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
