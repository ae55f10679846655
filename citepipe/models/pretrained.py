"""Models and tokenizers as transformers loads them, from their configuration to their weights.

Weights are read from safetensors only, and no code of a repository is run. Hub repositories that
hold only pickles mostly have a conversion as a pull request, which transformers finds by itself
(`revision=refs/pr/N` names it by hand).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.data.files import read_json
from citepipe.errors import InputError
from citepipe.provenance import digest_of_path

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("auto", "float32", "bfloat16", "4bit")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model and where it is from: `target` is a directory (`is_local`) or hub id, and
    `revision` the hub's commit, or a digest of a directory's content."""

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
    """`classifier`, `tokens`, `seq2seq` or `decoder`, by a model's configuration alone.

    A classifier says so in its architectures (BART's may be one, although it is an
    encoder-decoder); any other encoder-decoder answers with a label in words.
    """
    config = read_config(target, revision)
    architectures = list(getattr(config, "architectures", None) or [])
    endings = {"ForSequenceClassification": "classifier", "ForTokenClassification": "tokens"}
    for ending, kind in endings.items():
        if any(name.endswith(ending) for name in architectures):
            return kind
    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    if any(name.endswith("ForCausalLM") for name in architectures):
        return "decoder"
    found = ", ".join(architectures) or f"a {config.model_type} without architectures"
    raise InputError(
        f"verifier {target}: expected an encoder-decoder, a decoder, or a classifier of sequences "
        f"or tokens, its config.json says {found}"
    )


def read_config(
    target: str, revision: str | None = None, what: str = "verifier"
) -> PretrainedConfig:
    """The configuration of a model, or InputError."""
    check_directory(target, what)
    from transformers import AutoConfig

    with one_line(target, what, "config.json"):
        return AutoConfig.from_pretrained(target, revision=revision, trust_remote_code=False)


def check_directory(target: str, what: str) -> None:
    """Check that a target is a directory with a model's configuration and weights in safetensors,
    or that it may be a name at the hub."""
    directory, name = Path(target), f"{what} {target}"
    if not directory.exists():
        if target.startswith((".", "/", "~")) or target.count("/") > 1:
            raise InputError(f"{name}: no such directory")
        return
    path = directory / "config.json"
    if not path.is_file():
        raise InputError(f"{name}: not a model directory, it has no config.json")
    config = read_json(path)
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError(f"{path}: expected a model's configuration, it has no model_type")
    if not any(directory.glob("*.safetensors")):
        if any(directory.glob("*.bin")):
            raise InputError(
                f"{name}: its weights are pickled (.bin), not safetensors; convert it once with "
                "from_pretrained(directory).save_pretrained(directory) of its class in "
                "transformers, where you trust it"
            )
        raise InputError(f"{name}: it has a config.json but no weights (*.safetensors)")


def read_tokenizer(target: str, revision: str | None, what: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory or hub id, or InputError."""
    check_directory(target, what)
    files = [path.name for path in Path(target).glob("*")]
    # transformers would make an empty tokenizer.
    if files and not any(re.match(r"tokenizer|vocab\.|.*\.model$", name) for name in files):
        names = "tokenizer.json, spiece.model or the like"
        raise InputError(f"{what} {target}: it has no tokenizer ({names})")
    from transformers import AutoTokenizer

    with one_line(target, what, "no tokenizer that loads"):
        return AutoTokenizer.from_pretrained(target, revision=revision, trust_remote_code=False)


def read_model(
    target: str, revision: str | None, auto_class: str, what: str, device: Any, **settings: Any
) -> PreTrainedModel:
    """A model by a class of transformers, in evaluation mode; InputError if it is not whole.

    It goes to the device unless the settings (of `from_pretrained`) have a `device_map`; `what` it
    is for stands in error messages.
    """
    check_directory(target, what)
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    with one_line(target, what, "no model that loads"):
        model, notes = getattr(transformers, auto_class).from_pretrained(
            target,
            revision=revision,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **settings,
        )
        if "device_map" not in settings:
            model.to(device)
    # The pooler of a bare encoder takes no part in the states of its tokens.
    missing = sorted(key for key in notes["missing_keys"] if not key.startswith("pooler."))
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise InputError(f"{what} {target}: its weights lack {missing[0]}{more}")
    return model.eval()


def load_checkpoint(
    target: str,
    auto_class: str,
    device: str,
    dtype: str,
    revision: str | None,
    what: str = "verifier",
) -> Checkpoint:
    """Load tokenizer and model of what only reads: a verifier, a reader. See `read_model`.

    Args:
        device: `auto` (a GPU if there is one), or a torch device; a model is spread over all
            GPUs unless one is named.
        dtype: one of `DTYPES`; `auto` is as in `precision`; `4bit` is NF4.
    """
    if dtype not in DTYPES:
        raise InputError(f"{what} {target}: dtype {dtype!r}, expected {', '.join(DTYPES)}")
    config = read_config(target, revision, what)
    tokenizer = read_tokenizer(target, revision, what)
    import torch

    if device == "auto":
        # Of several processes each has a GPU of its own.
        rank = os.environ.get("LOCAL_RANK")
        device = f"cuda:{rank}" if rank else "cuda"
        device = device if torch.cuda.is_available() else "cpu"
    dtype = precision(dtype, device)
    settings: dict[str, Any] = {"dtype": getattr(torch, dtype, None)}
    if dtype == "4bit":
        settings = four_bit(torch.bfloat16, device)
    if device == "cuda":
        settings["device_map"] = "auto"
    model = read_model(target, revision, auto_class, what, device, **settings)
    is_local = Path(target).is_dir()
    commit = getattr(config, "_commit_hash", None) or revision
    version = digest_of_path(Path(target)) if is_local else commit
    return Checkpoint(target, version, is_local, dtype, model, tokenizer)


def precision(dtype: str, device: torch.device | str) -> str:
    """A dtype's name; for `auto` bfloat16 if the device multiplies it in hardware, else float32."""
    import torch

    if dtype != "auto":
        return dtype
    if torch.device(device).type == "cuda":
        is_quick = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = torch.cpu.get_capabilities()
        is_quick = known.get("amx_bf16", False) or known.get("avx512_bf16", False)
    return "bfloat16" if is_quick else "float32"


def four_bit(compute: torch.dtype, device: Any) -> dict[str, Any]:
    """The settings for weights in NF4 whose products are computed in `compute`."""
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    return {"dtype": compute, "quantization_config": quantization, "device_map": {"": device}}


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA has an exception of its own for it, the CPU's allocator and cuBLAS only words."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


@contextmanager
def one_line(target: str, what: str, problem: str) -> Iterator[None]:
    """What a bad file makes transformers raise, of many kinds, as an InputError of one line."""
    try:
        yield
    except Exception as error:
        line = first_line(error)
        if is_out_of_memory(error):
            line = "its weights do not fit into memory; 4bit, bfloat16 or a smaller model may do"
        elif "trust_remote_code" in str(error):
            line = "it needs code of its own, which is not run here; a server may run it"
        elif "ignore_mismatched_sizes" in line:
            line = "its weights have other shapes than its config.json says"
        if not Path(target).exists():
            problem = "neither a local directory nor a model of the hub that can be reached here"
        raise InputError(f"{what} {target}: {problem}: {line}") from None
