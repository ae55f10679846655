"""citepipe: train language models to cite well, and measure how well they cite.

As a library it is `score`, `reward`, `judge` and `token_rewards`, see `citepipe.library`; nothing
is imported before one of them is called for.
"""

import sys
from importlib import import_module
from types import ModuleType
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


class _Called(ModuleType):
    def __call__(self, *arguments: Any, **more: Any) -> Any:
        return __getattr__(self.__name__.rpartition(".")[2])(*arguments, **more)


def is_called(module: str) -> None:
    """Make a module with the name of a function of the library that function, too: once it is
    imported, it is what `citepipe.NAME` means."""
    sys.modules[module].__class__ = _Called
