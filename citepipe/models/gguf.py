"""A GGUF file, as llama.cpp has models, made into a base model that loads like any other."""

from __future__ import annotations

import importlib.util
from collections import Counter
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from citepipe.errors import InputError
from citepipe.models.pretrained import one_line
from citepipe.models.save import building
from citepipe.options import SourcesOptions
from citepipe.progress import summary
from citepipe.sources import fetch, is_remote

PACKAGE = "package:"


def prepare_base(given: str, out: Path, dtype: str, options: SourcesOptions) -> str:
    """Make a model directory of a GGUF file; returns a line that says what it was.

    Weights are dequantised to `dtype` and written as safetensors; configuration, tokenizer and
    chat template come from the file.

    `given` is a path, an address, or `package:NAME/FILE`, a file that an installed package has.

    Raises:
        InputError: no such file or package, or no GGUF of a causal language model that transformers
            reads, or the package gguf is missing.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with building(out) as partial, TemporaryDirectory(dir=out.parent) as folder:
        file = Path(given)
        if is_remote(given):
            fetch(given, Path(folder, "fetched"), options)
            file = next(Path(folder).rglob("*.gguf"))
        elif given.startswith(PACKAGE):
            file = _file_of_package(given)
        return _convert(given, file, partial, dtype)


def _file_of_package(given: str) -> Path:
    name, _, inside = given.removeprefix(PACKAGE).partition("/")
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise InputError(f"model.base {given}: no package {name} is installed here")
    return Path(found.submodule_search_locations[0], inside)


def _convert(given: str, file: Path, out: Path, dtype: str) -> str:
    if not file.is_file():
        raise InputError(f"model.base {given}: no such file")
    try:
        from gguf import GGUFReader
    except ImportError:
        raise InputError(
            f"model.base {given}: reading GGUF needs the package gguf: pip install gguf"
        ) from None
    import torch
    import transformers

    settings: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
    problem = "no GGUF of a language model that transformers reads"
    # Its reader draws a bar.
    with one_line(str(file), "model.base", problem), redirect_stderr(StringIO()):
        kinds = Counter(tensor.tensor_type.name for tensor in GGUFReader(file).tensors)
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **settings)
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent,
            **settings,
            dtype=getattr(torch, dtype),
            quantization_config=transformers.GgufConfig(dequantize=True),
            output_loading_info=True,
        )
        model, notes = loaded
        if notes["missing_keys"]:
            raise ValueError(f"its weights lack {min(notes['missing_keys'])}")
    # Its weights are plain numbers now; otherwise transformers refuses to save them.
    model.hf_quantizer, model.is_quantized = None, False
    vars(model.config).pop("quantization_config", None)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return summary(
        "base",
        {
            "of": given,
            "kind": model.config.model_type,
            "parameters": model.num_parameters(),
            "weights": ", ".join(f"{count} {name}" for name, count in kinds.most_common()),
            "now": dtype,
            "chat template": "yes" if tokenizer.chat_template else "none",
            "eos": tokenizer.eos_token,
            "pad": tokenizer.pad_token,
        },
    )
