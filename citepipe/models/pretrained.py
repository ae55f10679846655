"""Loading models that only read (verifiers, readers), from their configuration to their weights.

What a model is shows in its configuration, before any weight is read.

Weights are read from safetensors only. A pickled `.bin` file can run code when it is read, and
`weights_only=True` narrows that without the guarantee that safetensors gives by its format. Hub
repositories that hold only pickles mostly have a conversion of them as a pull request, which
transformers finds by itself (`revision=refs/pr/N` names it by hand).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.errors import InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("auto", "float32", "bfloat16", "4bit")
_CONVERT = (
    "convert it once with AutoModel.from_pretrained(directory).save_pretrained(directory) of its "
    "class in transformers, where you trust it"
)
_TOKENIZER_FILES = ("tokenizer*", "*.model", "vocab.*")
_WHOLE_BYTES = 64 * 2**20
_BYTES_PER_TENSOR = 4096
# What a bad file or directory makes transformers, tokenizers and safetensors raise.
_LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model and where it is from.

    Attributes:
        target: the directory or hub id.
        revision: the hub's commit, or a fingerprint of a local directory's content.
        is_local: it is a directory.
        dtype: of the weights: `float32`, `bfloat16` or `4bit`.
        model: in evaluation mode, on its device or devices.
        tokenizer: its tokenizer.
    """

    target: str
    revision: str | None
    is_local: bool
    dtype: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def name(self) -> str:
        """The last part of the target."""
        return Path(self.target).name


def kind_of(target: str, revision: str | None = None) -> str:
    """`seq2seq` or `classifier`, by a model's configuration alone.

    A sequence classifier says so in its architectures (BART's may be one, although it is an
    encoder-decoder); any other encoder-decoder is asked for a label in words.

    Raises:
        InputError: there is no such model, or it is neither.
    """
    config = read_config(target, revision)
    architectures = list(getattr(config, "architectures", None) or [])
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return "classifier"
    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    said = ", ".join(architectures) or f"a {config.model_type} without architectures"
    raise InputError(
        f"verifier {target}: expected an encoder-decoder or a sequence classifier, its "
        f"config.json says {said}"
    )


def read_config(
    target: str, revision: str | None = None, what: str = "verifier"
) -> PretrainedConfig:
    """The configuration of a model; a directory is looked at before transformers is imported.

    Raises:
        InputError: no directory and no model of the hub, or a configuration that cannot be read.
    """
    directory = Path(target)
    if directory.exists():
        _check_directory(directory, what)
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(target, revision=revision, trust_remote_code=False)
    except _LOADING_ERRORS as error:
        if directory.exists():
            raise InputError(f"{what} {target}: config.json: {_line(error)}") from None
        raise InputError(
            f"{what} {target}: neither a local directory nor a model of the hub that can be "
            f"reached from here{f' at revision {revision}' if revision else ''}: {_line(error)}"
        ) from None


def load_checkpoint(
    target: str,
    auto_class: str,
    device: str,
    dtype: str,
    revision: str | None,
    what: str = "verifier",
) -> Checkpoint:
    """Load tokenizer and model.

    Args:
        target: a directory or hub id.
        auto_class: the class of transformers that loads it.
        device: `auto` (a GPU if there is one), or a torch device; a model is spread over all
            GPUs unless one is named.
        dtype: one of `DTYPES`; `auto` is bfloat16 on a GPU, else float32; `4bit` is NF4.
        revision: of a hub model.
        what: the model is for, in complaints.

    Raises:
        InputError: no such model or dtype, no tokenizer, or weights that are no safetensors.
    """
    if dtype not in DTYPES:
        raise InputError(f"{what} {target}: dtype {dtype!r}, expected {', '.join(DTYPES)}")
    config = read_config(target, revision, what)
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # Of several processes each has a GPU of its own.
        if device == "cuda" and "LOCAL_RANK" in os.environ:
            device = f"cuda:{os.environ['LOCAL_RANK']}"
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    settings = _model_settings(f"{what} {target}", dtype, device)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            target, revision=revision, trust_remote_code=False
        )
    except (*_LOADING_ERRORS, ImportError) as error:
        raise InputError(f"{what} {target}: no tokenizer that loads: {_line(error)}") from None
    try:
        model, notes = getattr(transformers, auto_class).from_pretrained(
            target,
            revision=revision,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **settings,
        )
        if "device_map" not in settings:
            model = model.to(device)
    except torch.OutOfMemoryError:
        raise InputError(
            f"{what} {target}: its weights do not fit into the memory of {device} in {dtype}"
        ) from None
    # safetensors has an exception of its own, and a missing package raises ImportError.
    except Exception as error:
        pickled = not Path(target).exists() and "safetensors" in str(error)
        hint = f"; {_CONVERT}" if pickled else ""
        raise InputError(f"{what} {target}: no model that loads: {_line(error)}{hint}") from None
    # The pooler of a bare encoder takes no part in the states of its tokens.
    missing = sorted(key for key in notes["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InputError(
            f"{what} {target}: its weights lack {missing[0]}"
            + (f" and {len(missing) - 1} more" if missing[1:] else "")
        )
    is_local = Path(target).is_dir()
    version = _fingerprint(Path(target)) if is_local else getattr(config, "_commit_hash", None)
    return Checkpoint(target, version or revision, is_local, dtype, model.eval(), tokenizer)


def _check_directory(directory: Path, what: str) -> None:
    """Refuse what is no directory of a model with weights that can be read."""
    name = f"{what} {directory}"
    if not directory.is_dir():
        raise InputError(f"{name}: expected a directory, it is a file")
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{name}: not a model directory, it has no config.json") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected JSON: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError(f"{path}: expected a model's configuration, it has no model_type")
    if not any(directory.glob("*.safetensors")):
        if any(directory.glob("*.bin")):
            raise InputError(f"{name}: its weights are pickled (.bin), not safetensors; {_CONVERT}")
        raise InputError(f"{name}: it has a config.json but no weights (*.safetensors)")
    # transformers would make an empty tokenizer.
    if not any(next(directory.glob(pattern), None) for pattern in _TOKENIZER_FILES):
        raise InputError(f"{name}: it has no tokenizer (tokenizer.json, spiece.model or the like)")


def _model_settings(name: str, dtype: str, device: str) -> dict[str, Any]:
    import importlib.util

    import torch

    spread: Any = "auto" if device == "cuda" else {"": device}
    if dtype != "4bit":
        # A model on one device needs no map, which would need accelerate.
        settings: dict[str, Any] = {"dtype": getattr(torch, dtype)}
        return settings | ({"device_map": spread} if device == "cuda" else {})
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"{name}: dtype=4bit needs the package bitsandbytes")
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {
        "dtype": torch.bfloat16,
        "quantization_config": quantization,
        "device_map": spread,
    }


def _fingerprint(directory: Path) -> str:
    """A digest of a model's content, quick for large ones and the same for a copy.

    Files of up to 64 MiB count whole. Of a larger safetensors file the header counts, and the
    first 4 KiB of every tensor: training changes every tensor, and nearly every number in it. A
    file that differs only farther inside a tensor is taken for the same.
    """
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.suffix not in {".json", ".safetensors", ".model", ".txt"} or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as stream:
            if size <= _WHOLE_BYTES or path.suffix != ".safetensors":
                digest.update(hashlib.file_digest(stream, "sha256").digest())
                continue
            (length,) = struct.unpack("<Q", stream.read(8))
            header = stream.read(length)
            digest.update(header)
            tensors = (entry for key, entry in json.loads(header).items() if key != "__metadata__")
            for begin, end in sorted(tuple(entry["data_offsets"]) for entry in tensors):
                stream.seek(8 + length + begin)
                digest.update(stream.read(min(_BYTES_PER_TENSOR, end - begin)))
    return digest.hexdigest()[:16]


def _line(error: BaseException) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
