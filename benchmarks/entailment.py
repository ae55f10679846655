"""Entailment models to measure with, made on the spot: T5 of any size, random or trained."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from citepipe.data.example import Example
from citepipe.judgement import judge
from citepipe.text.sentences import load_splitter
from citepipe.verify.base import Pair
from citepipe.verify.lexical import LexicalVerifier

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

MINIATURE = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
SMALL = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
"""T5-small: 60 million parameters with its vocabulary of 32,128."""
BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
"""T5-base: 223 million parameters with it."""
XL: dict[str, Any] = {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32}
XL |= {"feed_forward_proj": "gated-gelu"}
"""T5-XL of version 1.1: 3 billion parameters."""
VOCABULARY = 32_128
"""T5's."""

_BATCH = 32
_LEARNING_RATE = 2e-3
_CALIBRATION_PAIRS = 64


class Entailment(NamedTuple):
    """An entailment model, as a directory and loaded."""

    directory: Path
    model: T5ForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase

    def lengths(self, pairs: Iterable[Pair]) -> list[int]:
        """Tokens of each pair's input."""
        return [len(self.tokenizer(prompt_of(pair)).input_ids) for pair in pairs]

    def operations(self, pairs: Iterable[Pair]) -> float:
        """Floating-point operations of the encoder on some pairs, without padding: two per weight
        and token, and attention's two products."""
        config: Any = self.model.config
        inner = config.num_heads * config.d_kv
        forward = 3 if config.is_gated_act else 2
        weights = 4 * config.d_model * inner + forward * config.d_model * config.d_ff
        each = (2 * weights * n + 4 * n * n * inner for n in self.lengths(pairs))
        return float(config.num_layers * sum(each))


class OneByOne:
    """A verifier that is queried as `NLIModel` in the paper's `training/reward.py` is: each pair by
    a `generate` of its own, at most ten tokens, read as text.

    Args:
        entailment: the model.
        most: pairs that are computed; the others count as not entailed. None for all.

    Attributes:
        queried: every pair so far.
        computed: how many of them were computed.
    """

    name = "one by one"

    def __init__(self, entailment: Entailment, most: int | None = None) -> None:
        self._model, self._tokenizer = entailment.model, entailment.tokenizer
        self._most = most
        self.queried: list[Pair] = []
        self.computed = 0

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair, in order."""
        self.queried += pairs
        chosen = pairs if self._most is None else pairs[: max(0, self._most - self.computed)]
        self.computed += len(chosen)
        return [self.decide(pair) for pair in chosen] + [False] * (len(pairs) - len(chosen))

    @torch.inference_mode()
    def decide(self, pair: Pair) -> bool:
        """Whether the premise entails the hypothesis."""
        ids: Any = self._tokenizer(
            prompt_of(pair), return_tensors="pt", max_length=2048, truncation=True
        ).input_ids
        generate: Any = self._model.generate
        written = generate(ids.to(self._model.device), max_new_tokens=10)[0]
        return str(self._tokenizer.decode(written, skip_special_tokens=True)) == "1"


def prompt_of(pair: Pair) -> str:
    """TRUE's prompt."""
    return f"premise: {pair.premise} hypothesis: {pair.hypothesis}"


def labelled_pairs(examples: Sequence[Example]) -> dict[Pair, bool]:
    """The pairs that judging these answers queries, labelled by words."""

    class Recording(LexicalVerifier):
        def entails(self, pairs: Sequence[Pair]) -> list[bool]:
            decisions = super().entails(pairs)
            labelled.update(zip(pairs, decisions, strict=True))
            return decisions

    labelled: dict[Pair, bool] = {}
    answers = [example.read(example.output or "", load_splitter(), "alce") for example in examples]
    judge(examples, answers, Recording())
    return labelled


def make_random(
    directory: Path,
    pairs: Iterable[Pair],
    shape: dict[str, Any],
    size: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Entailment:
    """A T5 with random weights that entails about half of some pairs.

    Args:
        directory: for the tokenizer.
        pairs: some of those that it will be queried for.
        shape: of the model, such as `MINIATURE`.
        size: of its vocabulary; None for what the pairs need.
        device: where its weights are made.
        dtype: of the weights.
    """
    pairs = list(pairs)
    tokenizer = save_tokenizer([prompt_of(pair) for pair in pairs], directory, size=size)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = _build(len(tokenizer), shape)
    finally:
        torch.set_default_dtype(before)
    made = Entailment(directory, model, tokenizer)
    _let_it_answer(made, pairs[:: max(len(pairs) // _CALIBRATION_PAIRS, 1)])
    return made


def make_trained(
    directory: Path, labelled: dict[Pair, bool], steps: int
) -> tuple[Entailment, float]:
    """A tiny T5 trained on pairs with labels `1` and `0`, as many of each, and saved.

    Args:
        directory: for tokenizer and weights.
        labelled: pairs and whether they are entailed; the tokenizer knows their words.
        steps: of 32 pairs each.

    Returns:
        The model, and the share of right labels in the last fifty batches.
    """
    threads = torch.get_num_threads()
    # Matrices of this size are not worth a second thread.
    torch.set_num_threads(1)
    tokenizer = save_tokenizer(map(prompt_of, labelled), directory)
    model = _build(len(tokenizer), MINIATURE)
    rng = random.Random(0)
    # Long premises cost most of the time and teach nothing else.
    short = [(pair, label) for pair, label in labelled.items() if len(pair.premise) < 400]
    sides = [[pair for pair, label in short if label is wanted] for wanted in (True, False)]
    answers = [tokenizer(text).input_ids for text in ("1", "0")]
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    model.train()
    right: list[float] = []
    for _ in range(steps):
        chosen = [rng.randrange(2) for _ in range(_BATCH)]
        texts = [prompt_of(rng.choice(sides[side])) for side in chosen]
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        labels = torch.tensor([answers[side] for side in chosen])
        output = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels
        )
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        right.append((output.logits[:, 0].argmax(-1) == labels[:, 0]).float().mean().item())
    model.eval()
    model.save_pretrained(directory)
    torch.set_num_threads(threads)
    return Entailment(directory, model, tokenizer), sum(right[-50:]) / len(right[-50:])


def save_tokenizer(
    texts: Iterable[str], directory: Path, words: int = 2000, size: int | None = None
) -> PreTrainedTokenizerBase:
    """A sentencepiece-like Unigram tokenizer in which ` 1` and ` 0` are tokens.

    Args:
        texts: whose frequent words become tokens; all others are spelt.
        directory: where it is saved.
        words: how many words become tokens.
        size: tokens in all; what is missing is filled with tokens that no text has.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    counts = Counter(f"▁{word}" for text in texts for word in text.split())
    common = dict(counts.most_common(words)) | {"▁1": 1, "▁0": 1}
    characters = sorted({character for word in counts for character in word} | set("▁10"))
    pieces = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    pieces += [(word, math.log(count / counts.total())) for word, count in common.items()]
    pieces += [(character, -20.0) for character in characters if character not in common]
    pieces += [(f"▁<extra_{n}>", -90.0) for n in range((size or 0) - len(pieces))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=2048, **names)
    fast.save_pretrained(directory)
    return fast


def _build(vocabulary: int, shape: dict[str, Any]) -> T5ForConditionalGeneration:
    """A T5 with random weights."""
    from transformers import T5Config, T5ForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(3)
    config = T5Config(
        vocab_size=vocabulary,
        decoder_start_token_id=0,  # type: ignore[call-arg]
        pad_token_id=0,
        eos_token_id=1,
        dropout_rate=0.0,
        **shape,
    )
    return T5ForConditionalGeneration(config).eval()


def _let_it_answer(made: Entailment, pairs: Sequence[Pair]) -> None:
    """Make random weights, which write the same for everything, answer `1` to about half of some
    pairs and `0` to the others.

    Two rows of the embedding, which is the output matrix too, are put on either side of the median
    of the decoder's states, along the direction in which they differ most. Either ends the answer.
    """
    model, tokenizer = made.model, made.tokenizer
    yes, no = (tokenizer(label, add_special_tokens=False).input_ids[0] for label in ("1", "0"))
    batch = tokenizer([prompt_of(pair) for pair in pairs], padding=True, return_tensors="pt")
    start = torch.zeros((len(pairs), 1), dtype=torch.long, device=model.device)
    rows = model.shared.weight
    with torch.no_grad():
        output = model(**batch.to(model.device), decoder_input_ids=start, output_hidden_states=True)
        states = output.decoder_hidden_states[-1][:, -1].float()
        common = states.mean(0)
        axis = torch.linalg.svd(states - common, full_matrices=False).Vh[0]
        axis -= common * (axis @ common) / (common @ common)
        axis -= common * (states @ axis).median() / (common @ common)
        highest = float((rows.float() @ common).max())
        spread = highest / float((states @ axis).abs().mean())
        for token, side in ((yes, 1), (no, -1)):
            towards = 2 * highest * common / (common @ common)
            rows[token] = (towards + side * spread * axis).to(rows.dtype)
    model.generation_config.eos_token_id = [1, yes, no]
