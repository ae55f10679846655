"""Answers with their prompts as a model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from citepipe.train.micro_batches import micro_batches

Ids = Sequence[int]


class Sample(NamedTuple):
    """An answer that was sampled, T tokens long."""

    prompt: tuple[int, ...]
    """Token ids."""
    token_ids: tuple[int, ...]
    """(T,), the token that ended the answer included."""
    text: str
    rewards: list[float]
    """(T,)."""
    totals: dict[str, float]
    """The sum of each component of the rewards."""
    log_probs: list[float]
    """(T,), as the sampler computed them."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and an answer to it.

    Attributes:
        token_ids: (n,), both, one behind the other.
        answer: how many of them, at the end, are the answer; at least one less than all.
    """

    token_ids: torch.Tensor
    answer: int

    @classmethod
    def of(cls, prompt: Ids, answer: Ids) -> Row:
        """The row of a prompt and an answer as token ids."""
        return cls(torch.tensor([*prompt, *answer]), len(answer))

    @property
    def length(self) -> int:
        """Tokens that the model reads: its prediction after the last one is not asked for."""
        return len(self.token_ids) - 1


class Batch(NamedTuple):
    """Answers laid out in rows for one pass.

    Notation: R rows, L tokens of the longest row, B answers, T tokens of the longest answer, N
    tokens of all answers, in order.
    """

    inputs: dict[str, torch.Tensor]
    """What the decoder is given: `input_ids` (R, L), perhaps `position_ids`, `attention_mask`."""
    before: torch.Tensor
    """(N,): the place in the flattened rows (R * L) after which each token is predicted."""
    targets: torch.Tensor
    """(N,): the answers' tokens."""
    owners: torch.Tensor
    """(N,): the answer of each."""
    mask: torch.Tensor
    """(B, T) float: 1 on the answers' tokens, 0 on the padding behind them."""

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """(B, T): values (N,) at the answers' places, 0 on padding."""
        spread = torch.zeros(self.mask.shape, dtype=values.dtype, device=values.device)
        return spread.masked_scatter(self.mask.bool(), values)


def separate_rows(rows: Sequence[Row], pad_id: int, device: torch.device) -> Batch:
    """Each answer behind its prompt in a row of its own, padded behind: what any model can read.

    No attention mask is needed: a causal model does not look at what stands behind.

    Args:
        rows: at least one.
        pad_id: the padding token.
        device: where the tensors go.
    """
    read = [row.token_ids[:-1] for row in rows]
    ids = pad_sequence(read, batch_first=True, padding_value=pad_id)
    starts = [number * ids.shape[1] for number in range(len(rows))]
    return _of_rows({"input_ids": ids}, starts, rows, device)


def padding_free(rows: Sequence[Row], device: torch.device) -> Batch:
    """All answers with their prompts in one row.

    Positions that begin anew tell the attention (the kernels of flash attention, or transformers'
    mask for the others) where each of them begins.

    Args:
        rows: at least one.
        device: where the tensors go.
    """
    read = [row.token_ids[:-1] for row in rows]
    starts = [0]
    for ids in read[:-1]:
        starts.append(starts[-1] + len(ids))
    inputs = {
        "input_ids": torch.cat(read)[None],
        "position_ids": torch.cat([torch.arange(len(ids)) for ids in read])[None],
    }
    return _of_rows(inputs, starts, rows, device)


def lay_out(
    prompts: Sequence[Ids],
    answers: Sequence[Sequence[Ids]],
    pad_id: int,
    device: torch.device,
    shared: bool,
) -> Batch:
    """Answers behind their prompts, padded behind.

    If `shared`, a row is a question: its prompt once, and its answers one behind the other. An
    attention mask and position numbers make each answer see the prompt and itself only, so the
    result is that of a row per answer, for the price of one prompt. The model must take a mask of
    four dimensions as it is, and attend to all tokens in every layer. If not, a row is a prompt and
    one answer, which any causal model reads without a mask.

    Args:
        prompts: token ids of G questions.
        answers: per question its answers, at least one token each.
        pad_id: the padding token.
        device: where the tensors go.
        shared: see above.
    """
    if not shared:
        prompts = [prompt for prompt, own in zip(prompts, answers, strict=True) for _ in own]
        answers = [[answer] for own in answers for answer in own]
    rows, positions, owners, before = [], [], [], []
    for prompt, own in zip(prompts, answers, strict=True):
        start, lengths = len(prompt), [len(answer) for answer in own]
        row = torch.tensor([*prompt, *chain.from_iterable(own)])
        place = torch.tensor([*range(start), *(start + t for n in lengths for t in range(n))])
        # Tokens of answer k have owner k, those of the prompt have owner 0 and are seen by all.
        owners.append(
            torch.repeat_interleave(torch.arange(len(own) + 1), torch.tensor([start, *lengths]))
        )
        # An answer's first token comes after the prompt's last.
        previous = torch.arange(start - 1, len(row) - 1)
        before.append(torch.where(place[start:] == start, start - 1, previous))
        rows.append(row)
        positions.append(place)
    ids = pad_sequence(rows, batch_first=True, padding_value=pad_id)
    width = ids.shape[1]
    inputs = {"input_ids": ids}
    if shared:
        owner = pad_sequence(owners, batch_first=True, padding_value=-1).to(device)
        seen = (owner[:, None, :] == owner[:, :, None]) | (owner[:, None, :] == 0)
        # Padding sees itself: a row that sees nothing would be NaN.
        seen &= torch.ones(width, width, dtype=torch.bool, device=device).tril()
        inputs["attention_mask"] = seen[:, None]
        inputs["position_ids"] = pad_sequence(positions, batch_first=True)
    return _batch(
        inputs,
        torch.cat([number * width + places for number, places in enumerate(before)]),
        [torch.tensor(answer) for own in answers for answer in own],
        device,
    )


def passes(
    samples: Sequence[Sample], questions: Sequence[range], shared: bool, budget: int
) -> list[list[range]]:
    """The answers to some questions, in passes of at most `budget` tokens.

    Answers to a question stay together as far as the budget allows.

    Args:
        samples: all answers.
        questions: of each question the places of its answers in `samples`.
        shared: a prompt stands once in front of its answers, not once per answer.
        budget: tokens of a pass, padding included; one answer alone may exceed it.

    Returns:
        per pass the places of its answers, those behind one prompt in a range.
    """

    def tokens(rows: range) -> int:
        prompts = 1 if shared else len(rows)
        return sum(len(samples[row].token_ids) for row in rows) + prompts * len(
            samples[rows[0]].prompt
        )

    parts: list[range] = []
    for rows in questions:
        together = len(rows)
        while together > 1 and tokens(rows[:together]) > budget:
            together = -(-together // 2)
        parts += [rows[first : first + together] for first in range(0, len(rows), together)]
    return [
        [parts[i] for i in chosen] for chosen in micro_batches([tokens(p) for p in parts], budget)
    ]


def _of_rows(
    inputs: dict[str, torch.Tensor],
    starts: Sequence[int],
    rows: Sequence[Row],
    device: torch.device,
) -> Batch:
    """A batch of rows that begin at these places of the flattened ids."""
    before = [
        torch.arange(start + row.length - row.answer, start + row.length)
        for start, row in zip(starts, rows, strict=True)
    ]
    answers = [row.token_ids[-row.answer :] for row in rows]
    return _batch(inputs, torch.cat(before), answers, device)


def _batch(
    inputs: dict[str, torch.Tensor],
    before: torch.Tensor,
    answers: Sequence[torch.Tensor],
    device: torch.device,
) -> Batch:
    lengths = torch.tensor([len(answer) for answer in answers])
    return Batch(
        {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()},
        before.to(device, non_blocking=True),
        torch.cat(list(answers)).to(device, non_blocking=True),
        torch.repeat_interleave(torch.arange(len(answers)), lengths).to(device),
        (torch.arange(int(lengths.max())) < lengths[:, None]).float().to(device),
    )
