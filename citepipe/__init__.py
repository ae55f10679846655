"""citepipe: train language models to cite well, and measure how well they cite.

As a library it is `score`, `reward`, `judge` and `token_rewards`, see `citepipe.library`; nothing
is imported before one of them is called for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from citepipe.library import judge, reward, score, token_rewards

__all__ = ["judge", "reward", "score", "token_rewards"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # By a text: what imports this package does not depend on all that the library does.
    return getattr(import_module("citepipe.library"), name)
