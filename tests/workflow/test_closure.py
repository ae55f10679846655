"""Which files a stage is made of, on a small package written here."""

from pathlib import Path

import pytest

from closure import Closure


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "pack/__init__.py": "",
        "pack/train/__init__.py": "",
        "pack/train/ppo.py": "from pack.train import losses\nfrom .rollout import go\n",
        "pack/train/losses.py": "from pack.text import words\n",
        "pack/train/rollout.py": "def go():\n    import pack.verify.lexical\n",
        "pack/train/sft.py": "from pack.text.words import split\n",
        "pack/text/__init__.py": "from pack.text.words import split\n",
        "pack/text/words.py": "split = str.split\n",
        "pack/verify/__init__.py": "",
        "pack/verify/lexical.py": "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from pack.train.sft import run\n",
        "script.py": "def work():\n    from pack.train import ppo\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def names(root: Path, files: list[Path]) -> list[str]:
    return [str(path.relative_to(root)) for path in files]


def test_closure_follows_every_form_of_import(root: Path) -> None:
    found = Closure(root, "pack").of_script(root / "script.py")
    assert names(root, found) == [
        "pack/__init__.py",
        "pack/text/__init__.py",
        "pack/text/words.py",
        "pack/train/__init__.py",
        "pack/train/losses.py",
        "pack/train/ppo.py",
        "pack/train/rollout.py",
        "pack/verify/__init__.py",
        "pack/verify/lexical.py",
    ]


def test_closure_of_a_module_has_the_packages_above_it(root: Path) -> None:
    found = Closure(root, "pack").of_module("pack.verify.lexical")
    assert names(root, found) == [
        "pack/__init__.py",
        "pack/verify/__init__.py",
        "pack/verify/lexical.py",
    ]


def test_other_packages_are_passed_over(root: Path) -> None:
    assert Closure(root, "pack").of_module("torch.nn") == []
