"""Answers with their prompts as a model reads them, and what fits into one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from citepipe.errors import InputError
from citepipe.models.pretrained import is_out_of_memory
from citepipe.progress import say

_Result = TypeVar("_Result")

Ids = Sequence[int]

# A GPU's matrix units are busy from some thousands of tokens on. A CPU is fastest while what it
# works on stays in its caches.
_TOKENS_PER_PASS = {"cuda": 4_096, "cpu": 1_024}
_SMALLEST_PASS = 64


class Row(NamedTuple):
    """A prompt and an answer to it, as token ids."""

    prompt: Ids
    answer: Ids

    @property
    def length(self) -> int:
        """Tokens that a model reads: what it predicts after the last one is not needed."""
        return len(self.prompt) + len(self.answer) - 1


class Batch(NamedTuple):
    """Answers laid out in rows for one pass.

    Notation: R rows, L tokens of the longest row, B answers, T tokens of the longest answer, N
    tokens of all answers, in order.
    """

    inputs: dict[str, torch.Tensor]
    """What the decoder receives: `input_ids` (R, L), perhaps `position_ids`, `attention_mask`."""
    before: torch.Tensor
    """(N,): the place in the flattened rows (R * L) after which each token is predicted."""
    targets: torch.Tensor
    """(N,): the answers' tokens."""
    mask: torch.Tensor
    """(B, T) float: 1 on the answers' tokens, 0 on the padding behind them."""

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """(B, T): values (N,) at the answers' places, 0 on padding."""
        spread = torch.zeros(self.mask.shape, dtype=values.dtype, device=values.device)
        return spread.masked_scatter(self.mask.bool(), values)


def lay_out(
    prompts: Sequence[Ids],
    answers: Sequence[Sequence[Ids]],
    pad_id: int,
    device: torch.device,
    shared: bool = False,
) -> Batch:
    """Answers behind their prompts.

    A row is a prompt and one answer but its last token, padded behind, which any causal model reads
    without a mask. If `shared`, a row is a question: its prompt once, and its answers one behind
    the other. An attention mask and position numbers make each answer see the prompt and itself
    only, so the result is that of separate rows, for the price of one prompt. The model must take a
    mask of four dimensions as it is, and attend to all tokens in every layer.

    Of each question there is the prompt, and its answers of at least one token each.
    """
    if not shared:
        prompts = [prompt for prompt, own in zip(prompts, answers, strict=True) for _ in own]
        answers = [[answer] for own in answers for answer in own]
    rows, positions, owners, before = [], [], [], []
    for prompt, own in zip(prompts, answers, strict=True):
        start, counts = len(prompt), [len(answer) for answer in own]
        row = torch.tensor([*prompt, *chain.from_iterable(own)])
        place = torch.tensor([*range(start), *(start + t for n in counts for t in range(n))])
        # Tokens of answer k have owner k, those of the prompt have owner 0 and are seen by all.
        both = torch.arange(len(own) + 1), torch.tensor([start, *counts])
        owners.append(torch.repeat_interleave(*both))
        # An answer's first token comes after the prompt's last.
        previous = torch.arange(start - 1, len(row) - 1)
        before.append(torch.where(place[start:] == start, start - 1, previous))
        rows.append(row if shared else row[:-1])
        positions.append(place)
    ids = pad_sequence(rows, batch_first=True, padding_value=pad_id)
    inputs, places = {"input_ids": ids}, [ids.shape[1] * i + own for i, own in enumerate(before)]
    if shared:
        owner = pad_sequence(owners, batch_first=True, padding_value=-1).to(device)
        seen = (owner[:, None, :] == owner[:, :, None]) | (owner[:, None, :] == 0)
        # Padding sees itself: a row that sees nothing would be NaN.
        inputs["attention_mask"] = seen.tril()[:, None]
        inputs["position_ids"] = pad_sequence(positions, batch_first=True)
    targets = [torch.tensor(answer) for own in answers for answer in own]
    return Batch(
        {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()},
        torch.cat(places).to(device, non_blocking=True),
        torch.cat(targets).to(device, non_blocking=True),
        pad_sequence([torch.ones(len(own)) for own in targets], batch_first=True).to(device),
    )


def answer_logits(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that predict each of the answers' tokens, and the states that they come from.

    A vocabulary is many times as wide as hidden states, so the logits of prompts and padding would
    be the largest tensor of a step: the output layer receives chosen states only. What a model does
    to its logits (scaling, soft-capping) is still done. `model` is without PEFT's wrapper.

    Returns:
        (N, V) logits, at least in float32, and (N, H) states.
    """
    states = torch.empty(0)

    def choose(_: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        nonlocal states
        states = arguments[0].flatten(0, 1)[batch.before]
        return (states[None],)

    output_layer: Any = model.get_output_embeddings()
    with output_layer.register_forward_pre_hook(choose):
        logits = model(**batch.inputs, use_cache=False).logits[0]
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), states


def answer_log_probs(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B, T): log-probabilities of the answers' tokens, at temperature 1, from logits (N, V)."""
    chosen = logits.gather(1, batch.targets[:, None])[:, 0]
    return batch.spread(chosen - logits.logsumexp(dim=-1))


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows, by their lengths in tokens, in batches of like length: indices into `lengths`.

    A batch has at most `budget` tokens, counted as rows times tokens of the longest; a row that is
    longer by itself is a batch of its own. The longest come first: a lack of memory shows early.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def passes(
    rows: Sequence[Row], questions: Sequence[range], shared: bool, budget: int
) -> list[list[range]]:
    """The answers to some questions, by their places in `rows`, in passes of at most `budget`
    tokens with padding, which one answer alone may exceed; those behind one prompt are a range.

    Answers to a question stay together as far as the budget allows. If `shared`, a prompt stands
    once in front of its answers, not once per answer.
    """

    def tokens(part: range) -> int:
        prompts = len(rows[part[0]].prompt) * (1 if shared else len(part))
        return prompts + sum(len(rows[place].answer) for place in part)

    parts: list[range] = []
    for question in questions:
        together = len(question)
        while together > 1 and tokens(question[:together]) > budget:
            together = -(-together // 2)
        parts += [question[i : i + together] for i in range(0, len(question), together)]
    return [[parts[i] for i in own] for own in micro_batches([tokens(p) for p in parts], budget)]


class TokenBudget:
    """Tokens of a forward and backward pass: `tokens`, halved whenever memory runs out.

    They begin as configured, or as suits the device; `section` is the configuration's.
    """

    def __init__(self, tokens: int | None, device: torch.device, section: str) -> None:
        self.tokens = tokens or _TOKENS_PER_PASS["cuda" if device.type == "cuda" else "cpu"]
        self._section = section

    def keep(self, where: str, work: Callable[[], _Result]) -> _Result:
        """Do work that reads `tokens`, from its start again when memory runs out.

        `where` says what is being done, such as `step 12`.

        Raises:
            InputError: the memory does not suffice for the smallest passes either.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler, whose traceback holds the tensors.
            torch.cuda.empty_cache()
            line = f"{self._section}, {where}: memory ran out"
            if self.tokens < 2 * _SMALLEST_PASS:
                raise InputError(
                    f"{line} with {self.tokens} tokens a pass; model.gradient_checkpointing, "
                    "model.quantization or a smaller model may help"
                )
            self.tokens //= 2
            say(
                f"{line}, goes on with {self.tokens} tokens a pass (to keep it: "
                f"{self._section}.tokens_per_pass)"
            )
