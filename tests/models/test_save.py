"""Errors while models are written."""

import errno
from pathlib import Path

import pytest

from citepipe.models.save import system_errors


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    said = "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"
    with pytest.raises(RuntimeError, match="enforce fail"), system_errors(tmp_path):
        raise RuntimeError(said)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".trial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught, system_errors(tmp_path):
        raise RuntimeError(said)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path)
