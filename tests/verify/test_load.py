import subprocess
import sys
from collections.abc import Sequence

import pytest

from citepipe.errors import InputError
from citepipe.verify.base import Pair
from citepipe.verify.load import load_verifier


class Made:
    """A verifier that shows what its factory was called with."""

    def __init__(self, argument: str = "nothing"):
        self.name = argument

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        return [False] * len(pairs)


def test_a_factory_is_called_with_what_follows_the_question_mark(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, "somewhere", sys.modules[__name__])
    assert load_verifier("somewhere:Made?a/b.json").name == "a/b.json"
    assert load_verifier("somewhere:Made").name == "nothing"


def test_factories_that_do_not_exist():
    with pytest.raises(InputError, match="no module 'nowhere'"):
        load_verifier("nowhere.at.all:factory")
    with pytest.raises(InputError, match="no function 'factory'"):
        load_verifier("citepipe.verify.load:factory")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (":f", "expected package.module:function"),
        (".x:f", "expected package.module:function"),
        ("json:loads", "loads cannot be called so"),
        ("os:getcwd", "has no method entails"),
        ("lexical?x=1", "lexical takes no argument"),
    ],
)
def test_what_is_no_verifier_is_one_clear_line(spec: str, message: str):
    with pytest.raises(InputError, match=message):
        load_verifier(spec)


def test_lexical_needs_no_torch():
    code = (
        "import sys; from citepipe.verify.load import load_verifier; "
        "from citepipe.verify.base import Pair; "
        "load_verifier('lexical').entails([Pair('a', 'b')]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
