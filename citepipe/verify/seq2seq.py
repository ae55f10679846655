"""Entailment by an encoder-decoder that answers with a label: TRUE, AttrScore, or any like them.

The peers run `generate(max_new_tokens=10)` on one pair at a time and compare the text with the
label. The decision is made by the first token that is generated, so one pass through the encoder
and one step of the decoder give it: entailed is what has the label's first token as arg-max.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.errors import InputError
from citepipe.verify.base import Pair

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_LENGTH = 2048
_TOKENS_PER_BATCH = 16_384


@dataclass(frozen=True, slots=True)
class Template:
    """How a family of verifiers is asked.

    Attributes:
        text: the input, with {premise} and {hypothesis}.
        label: the answer that means entailed.
        question_first: claims have their question in front.
    """

    text: str
    label: str
    question_first: bool = False


TEMPLATES = {
    # Honovich et al. 2022, google/t5_xxl_true_nli_mixture.
    "true": Template("premise: {premise} hypothesis: {hypothesis}", "1"),
    # Yue et al. 2023, osunlp/attrscore-flan-t5-xl: the instruction that it was trained with.
    "attrscore": Template(
        "As an Attribution Validator, your task is to verify whether a given reference can "
        "support the given claim. A claim can be either a plain sentence or a question followed "
        "by its answer. Specifically, your response should clearly indicate the relationship: "
        "Attributable, Contradictory or Extrapolatory. A contradictory error occurs when you can "
        "infer that the answer contradicts the fact presented in the context, while an "
        "extrapolatory error means that you cannot infer the correctness of the answer based on "
        "the information provided in the context. \n\nClaim: {hypothesis} \n Reference: {premise}",
        "Attributable",
        question_first=True,
    ),
}


class Seq2SeqVerifier:
    """A verifier over a loaded model.

    Args:
        name: what results are labelled with.
        model: an encoder-decoder in evaluation mode.
        tokenizer: its tokenizer.
        template: how it is asked and what it answers.
        identity: all that its decisions depend on.
        tokens_per_batch: pairs times tokens of the longest, per pass; halved when memory runs out.

    Raises:
        InputError: the tokenizer has no token for the label, or the model no first decoder token.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        identity: str,
        tokens_per_batch: int = _TOKENS_PER_BATCH,
    ) -> None:
        self.name = name
        self.identity = identity
        self.question_first = template.question_first
        self._model = model
        self._tokenizer = tokenizer
        self._template = template
        self._tokens_per_batch = tokens_per_batch
        self._label = _label_token(name, tokenizer, template.label)
        start = getattr(model.config, "decoder_start_token_id", None)
        if start is None:
            start = model.config.pad_token_id
        if start is None:
            raise InputError(f"verifier {name}: its configuration has no decoder_start_token_id")
        self._start = int(start)

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair. Equal pairs are computed once, similar lengths together."""
        distinct = list(dict.fromkeys(pairs))
        if not distinct:
            return []
        # Not str.format: passages may hold braces.
        before, between, after, premise_first = _parts(self._template.text)
        texts = [
            before + (p if premise_first else h) + between + (h if premise_first else p) + after
            for p, h in distinct
        ]
        encoded: list[list[int]] = self._tokenizer(
            texts, truncation=True, max_length=MAX_LENGTH
        ).input_ids
        order = sorted(range(len(distinct)), key=lambda i: len(encoded[i]))
        decisions: dict[Pair, bool] = {}
        for batch in _batches(order, encoded, self._tokens_per_batch):
            entailed = self._decide([encoded[i] for i in batch])
            decisions.update(zip([distinct[i] for i in batch], entailed, strict=True))
        return [decisions[pair] for pair in pairs]

    def _decide(self, inputs: list[list[int]]) -> list[bool]:
        """Decisions on a batch; a batch that does not fit into memory is halved."""
        import torch

        try:
            return self._step(inputs)
        except torch.OutOfMemoryError:
            if len(inputs) == 1:
                raise
        torch.cuda.empty_cache()
        self._tokens_per_batch = max(self._tokens_per_batch // 2, MAX_LENGTH)
        half = len(inputs) // 2
        return self._decide(inputs[:half]) + self._decide(inputs[half:])

    def _step(self, inputs: list[list[int]]) -> list[bool]:
        import torch

        width = max(map(len, inputs))
        pad = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in inputs])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in inputs])
        device = self._model.device
        with torch.inference_mode():
            logits: torch.Tensor = self._model(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                decoder_input_ids=torch.full((len(inputs), 1), self._start, device=device),
                use_cache=False,
            ).logits
        entailed: list[bool] = (logits[:, 0].argmax(-1) == self._label).tolist()
        return entailed


def load_seq2seq(
    target: str,
    device: str = "auto",
    template: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
) -> Seq2SeqVerifier:
    """Load a verifier model.

    Args:
        target: a directory or hub id of an encoder-decoder (T5).
        device: `auto` (a GPU if there is one), or a torch device.
        template: a key of `TEMPLATES`; by default `attrscore` if the target's name says so, else
            `true`.
        dtype: `float32`, `bfloat16` or `4bit` (NF4, needs bitsandbytes and a GPU); `auto` is
            bfloat16 on a GPU, else float32.
        revision: of a hub model.

    Raises:
        InputError: no such model, or a setting that does not exist.
    """
    name = Path(target).name
    template = template or ("attrscore" if "attrscore" in target.lower() else "true")
    if template not in TEMPLATES:
        raise InputError(f"verifier {target}: template {template!r}, expected {_either(TEMPLATES)}")
    dtypes = ("auto", "float32", "bfloat16", "4bit")
    if dtype not in dtypes:
        raise InputError(f"verifier {target}: dtype {dtype!r}, expected {_either(dtypes)}")
    directory = Path(target)
    if directory.exists() and not (directory / "config.json").is_file():
        raise InputError(f"verifier {target}: not a model directory, it has no config.json")

    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    settings = _model_settings(dtype, device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(target, revision=revision)
        model = AutoModelForSeq2SeqLM.from_pretrained(target, revision=revision, **settings)
    except (OSError, ValueError, KeyError) as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"verifier {target}: not a seq2seq model: {line}") from None
    if "device_map" not in settings:
        model = model.to(device)
    version = _fingerprint(directory) if directory.is_dir() else None
    identity = json.dumps(
        {
            "model": str(directory.resolve()) if version else target,
            "revision": version or getattr(model.config, "_commit_hash", None) or revision,
            "dtype": dtype,
            "max_length": MAX_LENGTH,
            "template": template,
        },
        sort_keys=True,
    )
    return Seq2SeqVerifier(name, model.eval(), tokenizer, TEMPLATES[template], identity)


def _model_settings(dtype: str, device: str) -> dict[str, Any]:
    import torch

    if dtype != "4bit":
        settings: dict[str, Any] = {"dtype": getattr(torch, dtype)}
        # Spread over all GPUs: TRUE has 11 billion parameters.
        return settings | ({"device_map": "auto"} if device == "cuda" else {})
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
        "device_map": "auto" if device == "cuda" else {"": device},
    }


def _label_token(name: str, tokenizer: PreTrainedTokenizerBase, label: str) -> int:
    """The first token of the label as a text of its own (T5: `▁1`, 209, and not `1`)."""
    tokens: list[int] = tokenizer(label, add_special_tokens=False).input_ids
    if not tokens or tokens[0] == tokenizer.unk_token_id:
        raise InputError(f"verifier {name}: its tokenizer has no token for the label {label!r}")
    return tokens[0]


def _parts(template: str) -> tuple[str, str, str, bool]:
    """A template as the texts before, between and after its two places; is premise the first?"""
    premise_first = template.index("{premise}") < template.index("{hypothesis}")
    first, second = ("{premise}", "{hypothesis}")[:: 1 if premise_first else -1]
    before, rest = template.split(first)
    between, after = rest.split(second)
    return before, between, after, premise_first


def _batches(order: Sequence[int], encoded: list[list[int]], budget: int) -> Iterator[list[int]]:
    """Consecutive runs of `order` (by length) of at most `budget` padded tokens, or of one."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * len(encoded[i]) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _fingerprint(directory: Path) -> str:
    """A digest that changes when a file of the model does: names, sizes, times of change."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.is_file():
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _either(names: Any) -> str:
    return ", ".join(names)
