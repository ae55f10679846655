"""Are citepipe's rewards those of the paper's programs, and where are they not?

Three of theirs: the rewards on tokens of reinforcement learning (`training/reward.py`), the sums of
best-of-n and of beam search (`fgrlhf/reward_utils.py`). On well-formed answers all have to agree,
the end of sequence included. On malformed ones the differences are counted by class; the classes
say why.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import peers
from common import DATASETS, Report
from odd_answers import taught_examples

from citepipe.data.example import Example, QAPair
from citepipe.miniature.corpus import build_tokenizer
from citepipe.options import RewardOptions
from citepipe.rewards import COMPONENTS, Reward, Rewarder, place
from citepipe.text.normalize import clean_output
from citepipe.text.sentences import Splitter
from citepipe.text.statements import remove_citations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PER_DATASET = 60
_LISTED = 5
"""QAMPARI's questions have at least as many answers; the paper's RL reward relies on it."""

_OPEN = "RL: the last statement's reward on its last token; ours: on the end, which closes it"
Tokens = dict[str, list[float]]


class Malformed(NamedTuple):
    """A class of answers: how it comes from a well-formed one, and why rewards may differ."""

    name: str
    make: Callable[[Example], Example]
    why: str


def _with(change: Callable[[str], str]) -> Callable[[Example], Example]:
    return lambda example: replace(example, output=change(example.output or ""))


def _first_citation(put: str) -> Callable[[Example], Example]:
    """With something else in the place of the first citation (behind the first word if none)."""

    def change(text: str) -> str:
        start = text.find(" [")
        if start < 0:
            head, _, tail = text.partition(" ")
            return f"{head} {put} {tail}"
        end = text.index("]", start) + 1
        return f"{text[:start]} {put}{text[end:]}"

    return _with(change)


def _empty_alias(example: Example) -> Example:
    if example.dataset != "asqa":
        return example
    return replace(example, qa_pairs=(*example.qa_pairs, QAPair("Which?", ("The",))))


def _part_of_item(example: Example) -> Example:
    if example.dataset != "qampari":
        return example
    surname = example.answers[0][0].split()[-1]
    return replace(example, answers=((surname,), *example.answers[1:]))


MALFORMED = (
    Malformed(
        "id out of range: [9]",
        _first_citation("[9]"),
        "best-of-n and beams leave a statement's citations out of the sum; RL and ours: wrong ones",
    ),
    Malformed("[0]", _first_citation("[0]"), "theirs: the last document; ours: no document"),
    Malformed(
        "doubled: [1][1]", _first_citation("[1][1]"), "theirs: like any two; ours: second is wrong"
    ),
    Malformed("four citations", _first_citation("[1][2][3][4]"), "none: three count"),
    Malformed(
        "group: [1, 2]", _first_citation("[1, 2]"), "RL reads the 2 before `]`, the others the 1"
    ),
    Malformed("not opened: 1]", _first_citation("1]"), "RL: a citation; the others: none"),
    Malformed("not closed: [1", _first_citation("[1"), "RL: no citation; the others: one"),
    Malformed("no final stop", _with(lambda text: text.rstrip(".")), _OPEN),
    Malformed(
        "citation behind the final stop",
        _with(lambda text: f"{text} [1]"),
        f"the last item of a list may cite a document twice, as above; {_OPEN}",
    ),
    Malformed("list ends with a comma", _with(lambda text: f"{text.rstrip('.')},"), _OPEN),
    Malformed(
        "repeated", _with(lambda text: f"{text} {text}"), "theirs reward a repeated statement"
    ),
    Malformed(
        "a second line",
        _with(lambda text: f"{text}\nAnd that is all [1]."),
        "best-of-n judges the first line, the others all of them",
    ),
    Malformed(
        "end mark <|im_end|>",
        _with(lambda text: f"{text}<|im_end|>"),
        "RL places the last statement's reward behind the mark",
    ),
    Malformed("empty", _with(lambda _: ""), "none"),
    Malformed(
        "cut off in the middle",
        _with(lambda text: text[: len(text) * 2 // 3]),
        f"{_OPEN}; where the cut leaves `[1`, as above",
    ),
    Malformed("alias that normalises to nothing", _empty_alias, "theirs: always hit, ours: never"),
    Malformed(
        "QAMPARI: answer is a part of an item",
        _part_of_item,
        "RL looks for it anywhere in the text, the others for the whole item",
    ),
    Malformed(
        "QAMPARI: fewer than five answers",
        lambda e: replace(e, answers=e.answers[:3]) if e.dataset == "qampari" else e,
        "RL takes off for five; best-of-n and ours for as many as there are",
    ),
)


class PaperRewards:
    """The paper's three programs over one entailment model, without their GPU set-up."""

    def __init__(self, folder: Path, model: Path, splitter: Splitter | None) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        sampling, rewards = peers.load_paper_rewards(folder, splitter)
        loaded = AutoModelForSeq2SeqLM.from_pretrained(model, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(model)
        self._rewards: ModuleType = rewards
        self._nli = rewards.NLIModel.__new__(rewards.NLIModel)
        self._nli.__dict__ |= {
            "ckpt": model.name,
            "model": loaded,
            "tokenizer": tokenizer,
            "accelerator": None,
            "max_seq_len": 2048,
        }
        self._best = _bare(sampling.RewardModelBestN, model.name, loaded, tokenizer)
        self._beams = _bare(sampling.RewardModelBeamSearch, model.name, loaded, tokenizer)
        # The three query the same model with the same prompt, once for a pair.
        once = lru_cache(None)(self._nli.run_nli_autoais)
        self._nli.run_nli_autoais = once
        self._best._run_nli_autoais_best_n = once
        self._beams._run_nli_autoais_beam_search = once

    def on_tokens(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
    ) -> list[Tokens]:
        """RL: per answer and component a reward per token of the tokenised answer."""
        import torch

        def sizes(component: str) -> dict[str, float]:
            return {f"{component}_positive_reward": 0.2, f"{component}_negative_reward": -0.2}

        cited = self._rewards.CitationRecallAndPrecisionReward(
            tokenizer,
            at_most_citations=3,
            nli_model=self._nli,
            **sizes("citation_recall"),
            **sizes("citation_precision"),
        )
        correct = self._rewards.SequenceLevelCorrectnessReward(
            tokenizer, nli_model=self._nli, **sizes("correctness")
        )
        found: list[Tokens] = []
        for example in examples:
            text = example.output or ""
            length = len(tokenizer.tokenize(text))
            # The end of sequence is theirs to mask in: it is not the pad token.
            mask = torch.ones((1, length + 1), dtype=torch.long)
            rows = [_row(example)]
            first = cited.get_reward(None, None, None, mask, [text], metadata=rows)
            # What the paper's policy hands over as normalised text.
            bare = remove_citations(clean_output(text))
            last = correct.get_reward(None, None, None, mask, [text], [bare], metadata=rows)
            names = {
                "citation_recall": first,
                "citation_precision": first,
                "correctness": last,
            }
            found.append({name: own[f"{name}_rewards"][0] for name, own in names.items()})
        return found

    def of_best_of_n(self, examples: Sequence[Example]) -> list[float]:
        """Best-of-n: the reward of each answer."""
        # It logs an example of some number in the middle of a data set: all rows go in one call.
        found: dict[int, float] = dict.fromkeys(range(len(examples)), 0.0)
        for dataset in {example.dataset for example in examples}:
            chosen = [i for i in found if examples[i].dataset == dataset]
            rows: list[dict[str, Any]] = [{**_row(examples[i]), "output": [""]} for i in chosen]
            outputs = [[examples[i].output or ""] for i in chosen]
            self._best.get_reward(rows, outputs, 1, dataset)
            found |= {i: float(r["sampled_rewards"][0]) for i, r in zip(chosen, rows, strict=True)}
        return list(found.values())

    def of_beams(self, examples: Sequence[Example]) -> list[float]:
        """Beam search: the reward of each answer as one segment, from the misses of no answer."""
        totals = []
        for example in examples:
            gold = len(example.qa_pairs or example.answers or example.claims)
            start = -0.2 * (min(_LISTED, gold) if example.dataset == "qampari" else gold)
            got = self._beams.get_reward(_row(example), None, example.output or "", [])
            totals.append(start + float(got["rw_change"]))
        return totals


def compare_rewards(folder: Path, model: Path, splitter: Splitter | None, report: Report) -> int:
    """Report both parts; returns the differences on well-formed answers, which should be none."""
    theirs = PaperRewards(folder, model, splitter)
    options = RewardOptions(splitter="punkt" if splitter is None else "punkt-rules")
    ours = Rewarder(str(model), options, model.with_name("rewards.sqlite"))
    examples = list(_well_formed())
    tokenizers = {
        "a word a token": build_tokenizer(),
        "subwords": _subwords(examples),
    }
    report()
    report("rewards of the paper's programs, trained T5, +-0.2 each")
    differences = 0
    for label, tokenizer in tokenizers.items():
        changed, placed = _on_tokens(theirs, ours, examples, tokenizer)
        differences += changed
        report(
            f"  RL on tokens, {label}: {len(examples)} well-formed answers, {placed} rewards; "
            f"{changed} answers differ"
        )
    for label, totals in (("best-of-n", theirs.of_best_of_n), ("beam search", theirs.of_beams)):
        unequal = sum(_unequal(totals(examples), _sums(ours, examples)))
        differences += unequal
        report(f"  sums of {label}: {len(examples)} well-formed answers, {unequal} differ")
    report()
    report("  malformed answers: how many have other rewards than theirs")
    report(f"  {'class':<44}{'answers':>8}{'RL':>6}{'best-of-n':>11}{'beams':>7}  why")
    tokenizer = tokenizers["subwords"]
    for malformed in MALFORMED:
        made = [malformed.make(example) for example in examples]
        made = [m for m, e in zip(made, examples, strict=True) if m != e]
        reinforced, _ = _on_tokens(theirs, ours, made, tokenizer)
        sums = _sums(ours, made)
        best = sum(_unequal(theirs.of_best_of_n(made), sums))
        beams = sum(_unequal(theirs.of_beams(made), sums))
        report(
            f"  {malformed.name:<44}{len(made):>8}{reinforced:>6}{best:>11}{beams:>7}  "
            f"{malformed.why}"
        )
    return differences


def _well_formed() -> Iterator[Example]:
    for dataset in DATASETS:
        for example in taught_examples(dataset, _PER_DATASET, seed=11):
            if dataset != "qampari":
                yield example
                continue
            others = [(f"Nobody {n}",) for n in range(_LISTED - len(example.answers))]
            yield replace(example, answers=(*example.answers, *others))


def _on_tokens(
    theirs: PaperRewards,
    ours: Rewarder,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[int, int]:
    """How many answers have other rewards on tokens, and how many rewards there are."""
    texts = [example.output or "" for example in examples]
    spans = ours.spans(examples, texts)
    different, placed = 0, 0
    for text, own, their in zip(texts, spans, theirs.on_tokens(examples, tokenizer), strict=True):
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = [*encoded["offset_mapping"], (len(text), len(text))]
        placed += len(own)
        different += not _same(own, offsets, their)
    return different, placed


def _same(own: Sequence[Reward], offsets: Sequence[tuple[int, int]], their: Tokens) -> bool:
    return not any(
        unequal
        for name in COMPONENTS
        for unequal in _unequal(
            place([reward for reward in own if reward.component == name], offsets), their[name]
        )
    )


def _sums(ours: Rewarder, examples: Sequence[Example]) -> list[float]:
    totals = ours.reward(examples, [example.output or "" for example in examples])
    return [sum(total.values()) for total in totals]


def _unequal(first: Sequence[float], second: Sequence[float]) -> list[bool]:
    return [not math.isclose(a, b, abs_tol=1e-9) for a, b in zip(first, second, strict=True)]


def _row(example: Example) -> dict[str, Any]:
    return {**example.to_row(), "qa_pairs": example.to_row()["qa_pairs"] or []}


def _bare(kind: Any, name: str, model: Any, tokenizer: Any) -> Any:
    """A reward model of theirs, without the constructor that loads onto a GPU."""
    made = kind.__new__(kind)
    switches = ("cot", "inference", "no_citation_reward", "no_correctness_reward")
    made.__dict__ |= dict.fromkeys(switches, False) | {
        "autoais_model_name": name,
        "autoais_model": model,
        "autoais_tokenizer": tokenizer,
        "logger": logging.getLogger("paper_rewards"),
        "at_most_citations": 3,
        "max_seq_len": 2048,
    }
    for part in ("cit_rec", "cit_prec", "corr_rec"):
        made.__dict__ |= {f"{part}_pos_rw": 0.2, f"{part}_neg_rw": -0.2}
    return made


def _subwords(examples: Sequence[Example]) -> PreTrainedTokenizerBase:
    """A byte-pair tokenizer that merges across punctuation: as in Llama's, `].` and `][` are
    tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.Metaspace()
    texts = [example.output or "" for example in examples]
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=["<unk>", "<pad>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    )
