"""The one place that loads tokenizers, base models and adapters."""

import logging

# Says, wherever bitsandbytes is installed, that it does without a kernel that nothing here asks for.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
