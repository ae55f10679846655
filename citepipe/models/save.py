"""Writing models: whole or not there at all, and the same bytes for the same weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from citepipe.data.files import read_json, write_json

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def save_model(
    model: PeftModel | PreTrainedModel, directory: Path, adapter: str | None = None
) -> None:
    """Write an adapter (by its name, or the only one), or all weights of a model that is none.

    Files of the same names in `directory` are written over.
    """
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        model.save_pretrained(directory)
        return
    name = adapter or model.active_adapter
    model.save_pretrained(str(directory), selected_adapters=[name])
    # PEFT puts any adapter but the one called default into a folder below.
    below = directory / name
    if below.is_dir():
        for path in below.iterdir():
            path.replace(directory / path.name)
        below.rmdir()
    # PEFT's model card is a form that nobody has filled in.
    (directory / "README.md").unlink(missing_ok=True)
    # It writes sets, in an order that changes from process to process.
    config = read_json(directory / "adapter_config.json")
    for key, value in config.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            config[key] = sorted(value)
    write_json(directory / "adapter_config.json", config)


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """A fresh directory to write into, put in the place of `out` once the block has ended.

    Torch, safetensors and tokenizers hide a full disk in errors of their own: where no more fits,
    an OSError is raised in place of theirs.
    """
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except Exception:
        try:
            (partial / ".trial").write_bytes(bytes(2**20))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(out)) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    publish(partial, out)


def publish(partial: Path, out: Path) -> None:
    """Put a finished directory in its place by renaming: it is whole or absent at every moment."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(partial, out)
    shutil.rmtree(old, ignore_errors=True)
