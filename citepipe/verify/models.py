"""Entailment by models: encoder-decoders that answer with a label, and classifiers.

TRUE, AttrScore and their like are run by the call that the peers make on one pair at a time,
`generate(max_new_tokens=10)`, here on batches, and entail where the text is the label. Where two
logits are so near that rounding may decide, the pair is decided alone, as the peers do it: in 32
bits all decisions agree. In fewer, batches round otherwise than single pairs do.

An NLI classifier reads premise and hypothesis as two segments and entails where the arg-max is its
entailment label. A model of two labels may also be read by a threshold on the probability of
support, by default 0.5, as MiniCheck is (Tang et al. 2024, arXiv 2404.10774).

A token classifier marks what a document does not support (LettuceDetect, Kovács and Recski 2025,
arXiv 2502.17125): a claim is supported where none of its tokens is marked.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from citepipe.errors import InputError
from citepipe.models.pretrained import (
    Checkpoint,
    is_out_of_memory,
    load_checkpoint,
    read_config,
)
from citepipe.progress import Progress, say
from citepipe.verify.base import BySupport, Pair, Provenance

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding, PretrainedConfig

MAX_LENGTH = 2048
# A GPU's matrix units are busy from some thousands of rows on, and activations of 16k tokens fit
# beside a model of 11 billion parameters. A CPU is fastest while a batch stays in its caches.
GPU_TOKENS_PER_BATCH = 16_384
CPU_TOKENS_PER_BATCH = 1_024
# What LettuceDetect's program reads.
_MARKED_TOKENS = 4_096
_PAIRS_PER_ENCODING = 1_024
_MAX_NEW_TOKENS = 10
# Logits of a batch and of a single pair differ by some millionths of their size.
_ROUNDING = 3e-5


class BatchedVerifier(BySupport):
    """What all verifiers that are models share; a subclass knows the model's input and answer.

    `settings` are what decisions depend on beside the model: template, label, threshold. In the
    identity a local directory counts by its content. `tokens_per_batch`, pairs times tokens of the
    longest, becomes smaller when memory runs out, and stays so.
    """

    question_first = False
    graded = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        kind: str,
        max_length: int,
        settings: Provenance,
        threshold: str | None = None,
    ) -> None:
        self.name = checkpoint.name
        self.max_length = max_length
        self.bounds = bounds_of(checkpoint.target, threshold)
        self.provenance: Provenance = {
            "kind": kind,
            "model": checkpoint.target,
            "revision": checkpoint.revision,
            "dtype": checkpoint.dtype,
            "max_length": max_length,
            **settings,
        }
        known_by = self.provenance | ({"model": None} if checkpoint.is_local else {})
        self.identity = json.dumps(known_by, sort_keys=True)
        self._model: Any = checkpoint.model
        self._tokenizer: Any = checkpoint.tokenizer
        on_cpu = self._model.device.type == "cpu"
        self.tokens_per_batch = CPU_TOKENS_PER_BATCH if on_cpu else GPU_TOKENS_PER_BATCH

    def supports(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[Pair, float]]]:
        """See `BySupport.supports`.

        The longest come first: what does not fit into memory shows at the start, as an InputError.
        """
        distinct = sorted(dict.fromkeys(pairs), key=lambda p: -len(p.premise) - len(p.hypothesis))
        progress = Progress(f"verifier {self.name}", len(distinct), "pairs", patient=True)
        full, remaining = 0, iter(distinct)
        while chunk := list(islice(remaining, _PAIRS_PER_ENCODING)):
            rows = self._encode(chunk)
            lengths = [len(ids) for ids in rows["input_ids"]]
            full += sum(length >= self.max_length for length in lengths)
            order = sorted(range(len(chunk)), key=lambda i: -lengths[i])
            while order:
                size = max(1, self.tokens_per_batch // max(1, lengths[order[0]]))
                batch, order = order[:size], order[size:]
                support = self._decide(chunk, rows, batch)
                progress.advance(len(batch))
                yield list(zip([chunk[i] for i in batch], support, strict=True))
        if full:
            say(
                f"verifier {self.name}: {full} of {len(distinct)} pairs reached the limit of "
                f"{self.max_length} tokens; what is beyond it was not read"
            )

    def _decide(
        self, chunk: Sequence[Pair], rows: Mapping[str, Any], batch: Sequence[int]
    ) -> list[float]:
        """Support of some of the encoded pairs, in halves if there is no memory for all."""
        import torch

        some = {key: [values[i] for i in batch] for key, values in rows.items()}
        padded = self._tokenizer.pad(some, return_tensors="pt").to(self._model.device)
        try:
            with torch.inference_mode():
                return self._step(padded)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, whose traceback holds the tensors.
        torch.cuda.empty_cache()
        width, half = padded.input_ids.shape[1], len(batch) // 2
        if half == 0:
            raise InputError(
                f"verifier {self.name}: no memory for one pair of {width} tokens, premise "
                f"{chunk[batch[0]].premise[:40]!r}; a smaller model, dtype=bfloat16, dtype=4bit "
                "or another device may do"
            )
        self.tokens_per_batch = half * width
        now = f"goes on with {self.tokens_per_batch} tokens a batch"
        say(f"verifier {self.name}: memory ran out, {now}")
        return [e for part in (batch[:half], batch[half:]) for e in self._decide(chunk, rows, part)]

    @abstractmethod
    def _encode(self, pairs: Sequence[Pair]) -> Mapping[str, list[list[int]]]:
        """The pairs as the model reads them, `input_ids` and whatever belongs to them, a list per
        pair, cut to `max_length` tokens."""

    @abstractmethod
    def _step(self, batch: BatchEncoding) -> list[float]:
        """Support of each pair of a padded batch, 1 or 0 from a model that gives no probability;
        all tensors (pairs, width)."""


class Template(NamedTuple):
    """How a family of encoder-decoders is queried: the input with {premise} and {hypothesis}, and
    the answer that means entailed, whatever its case.

    `against` is the answer that means not entailed, for models that are read by comparing the
    logits of the two and not by what they write. `question_first`: claims have their question in
    front.
    """

    text: str
    label: str
    against: str | None = None
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
    # Tang et al. 2024, lytang/MiniCheck-Flan-T5-Large: the probability of `1` against `0` is
    # over one half.
    "minicheck": Template("predict: {premise}</s>{hypothesis}", "1", against="0"),
}


class Seq2SeqVerifier(BatchedVerifier):
    """A verifier over a loaded encoder-decoder.

    `template` is a key of `TEMPLATES`; a tokenizer without a token for the label, or with one for
    both labels, is an InputError. A `threshold` is for templates of two labels.
    """

    def __init__(self, checkpoint: Checkpoint, template: str, threshold: str | None = None) -> None:
        its = self._template = TEMPLATES[template]
        settings: Provenance = {"template": template, "label": its.label}
        settings |= {"threshold": threshold} if threshold else {}
        super().__init__(checkpoint, "seq2seq", MAX_LENGTH, settings, threshold)
        self.question_first = its.question_first
        _attend_cheaply(self._model)
        labels = [label for label in (its.label, its.against) if label is not None]
        # The first token of the label as a text of its own (T5: `▁1`, 209, and not `1`).
        written = self._tokenizer(labels, add_special_tokens=False).input_ids
        self._first_tokens = [next(iter(ids), self._tokenizer.unk_token_id) for ids in written]
        distinct = set(self._first_tokens) - {self._tokenizer.unk_token_id}
        if len(distinct) < len(labels):
            raise InputError(
                f"verifier {self.name}: its tokenizer has no token for the label {its.label!r}"
                + (f" that {its.against!r} does not begin with" if its.against else "")
            )

    def _encode(self, pairs: Sequence[Pair]) -> Mapping[str, list[list[int]]]:
        # Not str.format: passages may hold braces. Texts are cut at the end, as the peers do.
        parts = re.split(r"\{(\w+)\}", self._template.text)
        texts = [
            "".join(getattr(pair, part) if i % 2 else part for i, part in enumerate(parts))
            for pair in pairs
        ]
        rows: Mapping[str, list[list[int]]] = self._tokenizer(
            texts, truncation=True, max_length=self.max_length
        )
        return rows

    def _step(self, batch: BatchEncoding) -> list[float]:
        import torch

        if self._template.against is not None:
            logits = self._generate(batch.input_ids, batch.attention_mask, 1).logits[0].double()
            label, against = self._first_tokens
            support: list[float] = torch.sigmoid(logits[:, label] - logits[:, against]).tolist()
            return support
        written = self._generate(batch.input_ids, batch.attention_mask)
        entailed = self._read(written.sequences)
        # Only in 32 bits: in fewer, single pairs and batches differ in more than ties.
        if self._model.dtype == torch.float32:
            tied = torch.stack([_nearly_tied(logits) for logits in written.logits]).any(0)
            for row in tied.nonzero()[:, 0].tolist():
                alone = batch.input_ids[row, batch.attention_mask[row].bool()][None]
                entailed[row] = self._read(self._generate(alone).sequences)[0]
        return list(map(float, entailed))

    def _generate(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, tokens: int = _MAX_NEW_TOKENS
    ) -> Any:
        """Sequences (pairs, at most 1 + tokens), and per new token logits (pairs, vocabulary)."""
        return self._model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=tokens,
            do_sample=False,
            num_beams=1,
            output_logits=True,
            return_dict_in_generate=True,
        )

    def _read(self, sequences: torch.Tensor) -> list[bool]:
        """Is the text the label?"""
        texts = self._tokenizer.batch_decode(sequences, skip_special_tokens=True)
        label = self._template.label.casefold()
        return [str(text).casefold() == label for text in texts]


def _attend_cheaply(model: torch.nn.Module) -> None:
    """Have T5's encoder join mask and position bias once, and not in every layer, and its
    cross-attention compute no keys and values of the whole input.

    An answer queries the input once per token and layer, for which T5 projects all of the input to
    keys and values: a seventh of all arithmetic. The projections are linear and may change sides,
    (W_q x) · (W_k e) = (W_k^T W_q x) · e and sum p W_v e = W_v sum p e; only the rounding differs.
    A pair by itself is left to T5's own code.
    """
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    def attend(its: Any, own: Any, x: torch.Tensor, mask: torch.Tensor | None, **read: Any) -> Any:
        """From (pairs, 1, width) to the encoder's (pairs, tokens, width), in 32 bits."""
        if len(x) == 1:
            return own(x, mask=mask, **read)
        keys, values = (w.weight.float().unflatten(0, (its.n_heads, -1)) for w in (its.k, its.v))
        queries = its.q(x).float().unflatten(-1, (its.n_heads, -1))[:, 0]
        states = read["key_value_states"].float()
        scores = torch.einsum("phk,hkw->phw", queries, keys) @ states.mT
        if mask is not None:
            # Of booleans, or to be added.
            mask = mask[:, 0]
            scores = scores + mask if mask.dtype.is_floating_point else scores.where(mask, -1e30)
        found = torch.einsum("phw,hkw->phk", scores.softmax(-1) @ states, values).flatten(1)
        return its.o(found[:, None].to(x.dtype)), read["position_bias"], None

    def attend_itself(
        its: Any, own: Any, x: torch.Tensor, mask: torch.Tensor | None, **read: Any
    ) -> Any:
        """What is returned as the bias is given to the next layer."""
        if mask is not None and read["position_bias"] is None:
            bias = its.compute_bias(x.shape[1], x.shape[1])
            is_added = mask.dtype.is_floating_point
            bias = bias + mask if is_added else bias.where(mask, torch.finfo(bias.dtype).min)
            read["position_bias"] = bias.contiguous()
        return own(x, mask=None, **read)

    for name, module in model.named_modules():
        # Quantized weights are no plain matrices, and those that wait on a CPU are not there.
        plain = isinstance(module, T5Attention) and type(module.k) is torch.nn.Linear
        if plain and not module.k.weight.is_meta:
            if name.endswith("EncDecAttention"):
                module.forward = partial(attend, module, module.forward)
            elif not module.is_decoder:
                module.forward = partial(attend_itself, module, module.forward)


def _nearly_tied(logits: torch.Tensor) -> torch.Tensor:
    """Of logits (pairs, vocabulary), whether rounding may decide which is the largest: (pairs,)."""
    first, second = logits.topk(2).values.unbind(-1)
    return first - second <= _ROUNDING * logits.abs().amax(-1)


def load_seq2seq(
    target: str,
    device: str = "auto",
    template: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    threshold: str | None = None,
) -> Seq2SeqVerifier:
    """Load an encoder-decoder (T5) that answers with a label; see `load_checkpoint`.

    `template` is a key of `TEMPLATES`, by default `attrscore` or `minicheck` if the target's name
    says so, else `true`; `threshold` (`bounds_of`) is for `minicheck`, by default 0.5.
    """
    named = [key for key in ("attrscore", "minicheck") if key in target.lower()]
    template = template or next(iter(named), "true")
    if template not in TEMPLATES:
        raise InputError(
            f"verifier {target}: template {template!r}, expected {', '.join(TEMPLATES)}"
        )
    if threshold is not None and TEMPLATES[template].against is None:
        raise InputError(f"verifier {target}: template {template} has no threshold")
    bounds_of(target, threshold)
    checkpoint = load_checkpoint(target, "AutoModelForSeq2SeqLM", device, dtype, revision)
    return Seq2SeqVerifier(checkpoint, template, threshold)


# How a classifier's two texts are joined: `nli` as the tokenizer's two segments; `minicheck` as one
# text with the end-of-sequence token between, which for RoBERTa is not the same.
FORMATS = ("nli", "minicheck")
_ENTAILED = frozenset({"entailment", "entailed", "entails"})
_SUPPORTED = frozenset({"1", "support", "supports", "supported", "attributable", "consistent"})


class ClassifierVerifier(BatchedVerifier):
    """A verifier over a loaded sequence classifier: support is the probability of `label`, or,
    where there is no threshold, whether that is the largest one.

    MiniCheck's own program cuts a long document into chunks and takes the best; here a premise is
    read whole, and one that is too long is cut at its end, never the hypothesis.
    """

    def __init__(
        self, checkpoint: Checkpoint, template: str, label: int, threshold: str | None = None
    ) -> None:
        name = _labels(checkpoint.model.config)[label]
        settings: Provenance = {"template": template, "label": f"{label} {name}"}
        low, high = bounds_of(checkpoint.target, threshold)
        settings["threshold"] = low if threshold and low == high else threshold
        super().__init__(checkpoint, "classifier", most_tokens(checkpoint), settings, threshold)
        self._template, self._label, self._is_argmax = template, label, threshold is None
        causal = [m.is_causal for m in self._model.modules() if hasattr(m, "is_causal")]
        is_behind = self._tokenizer.padding_side == "right"
        # Then no token sees the padding, and attention is half as much without a mask.
        self._drops_mask = bool(causal) and all(causal) and is_behind

    def _encode(self, pairs: Sequence[Pair]) -> Mapping[str, list[list[int]]]:
        tokenizer = self._tokenizer
        rows: Mapping[str, list[list[int]]]
        if self._template == "nli":
            # Cuts the longer of the two, which is the premise.
            rows = tokenizer(
                [pair.premise for pair in pairs],
                [pair.hypothesis for pair in pairs],
                truncation=True,
                max_length=self.max_length,
            )
            return rows
        between = tokenizer.eos_token or tokenizer.sep_token
        separator = tokenizer.convert_tokens_to_ids(between)
        ids = tokenizer([pair.premise + between + pair.hypothesis for pair in pairs]).input_ids
        return {"input_ids": [_cut_premise(row, separator, self.max_length) for row in ids]}

    def _step(self, batch: BatchEncoding) -> list[float]:
        if self._drops_mask:
            batch.pop("attention_mask")
        logits = self._model(**batch).logits.float()
        is_label = (logits.argmax(-1) == self._label).float()
        support = is_label if self._is_argmax else logits.softmax(-1)[:, self._label]
        found: list[float] = support.tolist()
        return found


def load_classifier(
    target: str,
    device: str = "auto",
    template: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    label: str | None = None,
    threshold: str | None = None,
) -> ClassifierVerifier:
    """Load a sequence classifier; labels and settings are checked before any weight is read.

    `template` is one of `FORMATS`, by default `minicheck` for a model of labels `0` and `1`, else
    `nli`; `label` the index or name of the label that means entailed, where the names do not tell;
    `threshold` (`bounds_of`), for models of two labels, by default 0.5.
    """
    names = _labels(read_config(target, revision))
    if len(names) < 2:
        raise InputError(f"verifier {target}: expected a model of at least two labels, it has one")
    index = _entailment_label(target, names, label)
    template = template or ("minicheck" if set(names.values()) == {"0", "1"} else "nli")
    if template not in FORMATS:
        raise InputError(f"verifier {target}: template {template!r}, expected {', '.join(FORMATS)}")
    if len(names) > 2 and threshold is not None:
        raise InputError(
            f"verifier {target}: a threshold is for models of two labels, it has {len(names)}"
        )
    limit = None if len(names) > 2 else "0.5" if threshold is None else threshold
    bounds_of(target, limit)
    checkpoint = load_checkpoint(
        target, "AutoModelForSequenceClassification", device, dtype, revision
    )
    return ClassifierVerifier(checkpoint, template, index, limit)


class TokenVerifier(BatchedVerifier):
    """A verifier over a loaded token classifier, whose label 1 is that of unsupported tokens:
    support is 1 less the highest probability of it among the claim's tokens.

    LettuceDetect's own program parts premises that are too long; here they are cut at their end.
    """

    def __init__(self, checkpoint: Checkpoint, threshold: str) -> None:
        limit = most_tokens(checkpoint, _MARKED_TOKENS)
        super().__init__(checkpoint, "tokens", limit, {"threshold": threshold}, threshold)

    def _encode(self, pairs: Sequence[Pair]) -> Mapping[str, list[list[int]]]:
        rows = self._tokenizer(
            # What LettuceDetect reads where there is no question (its `summary_prompt_en.txt`).
            [
                f"Summarize the following text:\npassage 1: {pair.premise}\noutput:"
                for pair in pairs
            ],
            [pair.hypothesis for pair in pairs],
            truncation=True,
            max_length=self.max_length,
        )
        # Of all that a tokenizer pads, this is padded with ones: all that is no token of the claim.
        others = [[int(part != 1) for part in rows.sequence_ids(i)] for i in range(len(pairs))]
        return {**rows, "special_tokens_mask": others}

    def _step(self, batch: BatchEncoding) -> list[float]:
        others = batch.pop("special_tokens_mask").bool()
        marked = self._model(**batch).logits.float().softmax(-1)[..., 1].masked_fill(others, 0)
        support: list[float] = (1 - marked.amax(-1)).tolist()
        return support


def load_token_classifier(
    target: str,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    threshold: str = "0.5",
) -> TokenVerifier:
    """Load a token classifier that marks what is unsupported; `threshold` as of `bounds_of`."""
    names = _labels(read_config(target, revision))
    if len(names) != 2:
        raise InputError(f"verifier {target}: expected two labels of tokens, it has {len(names)}")
    bounds_of(target, threshold)
    checkpoint = load_checkpoint(target, "AutoModelForTokenClassification", device, dtype, revision)
    return TokenVerifier(checkpoint, threshold)


def _labels(config: PretrainedConfig) -> dict[int, str]:
    return {int(index): name for index, name in (config.id2label or {}).items()}


def _entailment_label(target: str, names: Mapping[int, str], label: str | None) -> int:
    """The index of the label that means entailed."""
    listed = ", ".join(f"{index} {name}" for index, name in sorted(names.items()))
    if label is not None:
        # A name counts before an index: labels may be numbers in another order.
        found = [i for i, name in names.items() if name == label]
        found = found or [i for i in names if str(i) == label]
    else:
        meant = _ENTAILED | _SUPPORTED if len(names) == 2 else _ENTAILED
        found = [i for i, name in names.items() if name.casefold() in meant]
    if len(found) == 1:
        return found[0]
    if label is not None:
        raise InputError(f"verifier {target}: label {label!r}, expected one of {listed}")
    raise InputError(
        f"verifier {target}: its labels ({listed}) do not say which one means entailed; name it "
        "with ?label="
    )


def bounds_of(target: str, threshold: str | None) -> tuple[float, float]:
    """A threshold as a lower and an upper bound: of `0.5`, the default, both are that; of `0.2-0.8`
    what is between is undecided."""
    threshold = "0.5" if threshold is None else threshold
    with suppress(ValueError):
        low, _, high = threshold.partition("-")
        bounds = float(low), float(high or low)
        if 0 <= bounds[0] <= bounds[1] < 1 and not threshold.endswith("-"):
            return bounds
    raise InputError(
        f"verifier {target}: threshold {threshold!r}, expected a number from 0 to below 1, or two "
        "as 0.2-0.8, between which it is undecided"
    )


def most_tokens(checkpoint: Checkpoint, most: int = MAX_LENGTH) -> int:
    """Tokens that a model can read: its table of positions, else its configuration, at most `most`.

    RoBERTa's table begins behind its padding index. A model of relative positions alone has no
    table, and no limit (MiniCheck reads 2,048 tokens with DeBERTa).
    """
    base: Any = checkpoint.model.base_model
    table = getattr(getattr(base, "embeddings", None), "position_embeddings", None)
    if table is not None:
        skipped = 0 if table.padding_idx is None else table.padding_idx + 1
        return min(int(table.num_embeddings) - skipped, most)
    config = checkpoint.model.config
    if getattr(config, "relative_attention", False):
        return most
    known = getattr(config, "max_position_embeddings", None) or most
    return min(int(known), int(min(checkpoint.tokenizer.model_max_length, most)))


def _cut_premise(tokens: list[int], separator: int, limit: int) -> list[int]:
    """Tokens of `premise separator hypothesis end`, shortened to `limit` before the separator."""
    excess = len(tokens) - limit
    if excess <= 0:
        return tokens
    end = len(tokens) - 1
    # The last separator before the one that ends the text, if one does.
    place = max((i for i in range(end) if tokens[i] == separator), default=end)
    place = max(place, 1 + excess)
    return tokens[: place - excess] + tokens[place:]
