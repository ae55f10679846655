import subprocess
import sys

import pytest

from citepipe.errors import InputError
from citepipe.verify.load import load_verifier


def made(argument: str = "nothing") -> str:
    """A factory that shows what it was called with."""
    return argument


def test_a_factory_is_called_with_what_follows_the_question_mark(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, "somewhere", sys.modules[__name__])
    assert load_verifier("somewhere:made?a/b.json") == "a/b.json"
    assert load_verifier("somewhere:made") == "nothing"


def test_factories_that_do_not_exist():
    with pytest.raises(InputError, match="no module 'nowhere'"):
        load_verifier("nowhere.at.all:factory")
    with pytest.raises(InputError, match="no function 'factory'"):
        load_verifier("citepipe.verify.load:factory")


def test_lexical_needs_no_torch():
    code = (
        "import sys; from citepipe.verify.load import load_verifier; "
        "from citepipe.verify.base import Pair; "
        "load_verifier('lexical').entails([Pair('a', 'b')]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
