"""Does the segment search decide as the paper's does? Its own code beside ours, on the same draws.

    python benchmarks/search_parity.py --atg atg-w-fg-rw

The paper's `generate_beam_search` (`fgrlhf/utils.py`) runs as it was fetched. A model that writes
from a small grammar, by draws that depend on the question, the level, the text so far and the
number of the sample, stands in for vLLM and for our generator alike; rewards have few values, all
of them exact sums, so that ties are common. Compared are the beams that stay at every level, in
their order (text and reward), and the answer at the end.

Ours draws `beams` x `samples_per_beam` first segments and keeps the best `beams`, the paper's draws
`beams` and keeps all. Those that ours draws beyond the paper's are made worthless here, so that
both go on from the same beams.

A list that abstains ends with the comma at which it was cut in ours and without it in the paper's;
commas at the end are not compared. What the two are meant to do differently has questions of its
own: answers that end with a line break (the paper's code knows only Llama's end of sequence and
goes on behind it), and answers that are as long as they may be (its limit is per segment).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import peers
from common import DATASETS, Report, argument_parser

from citepipe.data.example import Example
from citepipe.generate.completion import Completion, Done, FinishReason, Request
from citepipe.options import SegmentSearchOptions
from citepipe.sample.segment_search import segment_search
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import is_list

_END = 2
"""The end of sequence of Llama's tokenizer, which the paper's search knows by its number."""
_WORDS = ("Anna", "Bela", "Carl", "sailed", "painted", "rowed", "1987", "Oslo", "[1]", "[2]", "[3]")
_ABSTAINING = " There is no answer here"
_SURPLUS = " surplus"
_AT_ONCE = 50
"""Questions that ours searches together."""

Levels = list[list[tuple[str, float]]]
"""Per level the beams that stay, best first: text and reward."""


class Manner(NamedTuple):
    """How the model writes.

    Attributes:
        ends: probability that a segment is the last.
        breaks: of these, the share that ends with a line break.
        limit: tokens (here words) of an answer.
    """

    ends: float = 0.2
    breaks: float = 0.0
    limit: int = 1000


def write(
    manner: Manner, dataset: str, question: str, level: int, before: str, sample: int
) -> tuple[str, FinishReason]:
    """A segment without its separator, and why it ended."""
    rng = random.Random(f"{question}/{level}/{before}/{sample}")
    if rng.random() < 0.04:
        return _ABSTAINING, "segment"
    words = [rng.choice(_WORDS) for _ in range(rng.randint(1, 3))]
    text = "".join(f" {word}" for word in words)
    if rng.random() >= manner.ends:
        return text, "segment"
    return text, "stop" if rng.random() < manner.breaks else "end"


def worth(text: str) -> float:
    """A reward with few values, the same for both, and too little for `_SURPLUS`."""
    if _SURPLUS in text:
        return -1e9
    return 0.25 * (text.count("[1]") + text.count("Anna") - text.count("[2]") - text.count("rowed"))


class OurModel:
    """The grammar as a generator; token ids are the numbers of generated texts."""

    capacity = 1000

    def __init__(self, manner: Manner, examples: dict[int, Example], first: int) -> None:
        self._manner, self._examples, self._first = manner, examples, first
        self._texts: list[str] = []

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        return [[self._write(r, sample) for sample in range(r.samples)] for r in requests]

    def _write(self, request: Request, sample: int) -> Completion:
        example = self._examples[request.prompt[0]]
        before = "".join(self._texts[i] for i in request.prefix if i >= 0)
        level = int(request.key.split("/")[-2])
        if level == 0 and sample >= self._first:
            text, finish = _SURPLUS, "segment"
        else:
            text, finish = write(self._manner, example.dataset, example.id, level, before, sample)
        listing = is_list(example.dataset)
        if finish == "segment" or not listing:
            text += "," if listing else "."
        self._texts.append(text)
        # One number stands for the text, and one for each word behind the first.
        ids = (len(self._texts) - 1, *(-1 for _ in text.split()[1:]))[: request.max_new_tokens]
        if len(ids) >= request.max_new_tokens and finish == "segment":
            finish = "length"
        return Completion(ids, text, (), (), finish)

    def close(self) -> None:
        """Nothing is held."""


def our_search(
    manner: Manner, examples: Sequence[Example], options: SegmentSearchOptions
) -> list[Levels]:
    """Our search of some questions together."""
    rewarder: Any = SimpleNamespace(
        reward=lambda _, texts: [{"citation_recall": worth(text)} for text in texts]
    )
    records = segment_search(
        examples,
        [(number,) for number in range(len(examples))],
        OurModel(manner, dict(enumerate(examples)), options.beams),
        rewarder,
        options,
        load_splitter("punkt-rules"),
        0,
    )
    found = []
    for record in records:
        beams: list[tuple[str, float]] = []
        levels = []
        for step in record["steps"]:
            drawn = [
                (("" if d["parent"] is None else beams[d["parent"]][0]) + d["text"], d["reward"])
                for d in step["drawn"]
            ]
            beams = [drawn[i] if kind == "drawn" else beams[i] for kind, i in step["kept"]]
            levels.append(beams)
        found.append(levels)
    return found


def paper_search(
    module: Any, manner: Manner, example: Example, options: SegmentSearchOptions
) -> Levels:
    """The paper's search of one question."""
    listing = is_list(example.dataset)
    sampling = SimpleNamespace(
        n=options.samples_per_beam,
        max_tokens=200,
        stop=["\n", "," if listing else "."],
        temperature=1.0,
        top_k=50,
        top_p=1.0,
    )
    calls = iter(range(1000))

    def generate(prompts: Sequence[str], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        level = next(calls)

        def output(prompt: str, sample: int) -> Any:
            text, finish = write(manner, example.dataset, example.id, level, prompt, sample)
            return SimpleNamespace(text=text, token_ids=[_END] if finish == "end" else [5])

        samples = range(sampling_params.n)
        return [SimpleNamespace(outputs=[output(p, sample) for sample in samples]) for p in prompts]

    def get_reward(item: Any, seq: Any, text: str, hits: Any) -> dict[str, Any]:
        whole = seq["pred_text"] + text
        counted = ("entail", "num_sents", "entail_prec", "total_citations")
        changes = ("cit_rec_rw_change", "cit_prec_rw_change", "corr_rec_rw_change")
        change = worth(whole) - worth(seq["pred_text"])
        return {"rw_change": change, "new_hits": [], **dict.fromkeys((*counted, *changes), 0)}

    search = object.__new__(module.VLLM)
    search.llm = SimpleNamespace(generate=generate)
    search.sampling_params = sampling
    search.beam_search_rw_m = SimpleNamespace(get_reward=get_reward)
    dice = random.Random(f"0/{example.dataset}/{example.id}/drop")
    module.random = SimpleNamespace(random=dice.random)
    item: dict[str, Any] = {"dataset": example.dataset, "prompt_without_demo": ""}
    depth = options.depth_list if listing else options.depth
    search.generate_beam_search(
        item, options.beams, depth, init_prob=options.drop_parent if listing else -1
    )
    levels = sorted((k for k in item if k.startswith("beam")), key=lambda k: int(k.split("_")[-1]))
    return [[(seq["pred_text"], seq["reward"]) for seq in item[level]] for level in levels]


def compare(name: str, manner: Manner, count: int, module: Any, report: Report) -> int:
    """Both on some questions, one line; on how many they differ."""
    apart = answers = levels = ties = 0
    rng = random.Random(name)
    for begin in range(0, count, _AT_ONCE):
        options = SegmentSearchOptions(
            beams=rng.choice((1, 2, 3, 8)),
            samples_per_beam=rng.choice((1, 2, 4)),
            depth=rng.choice((1, 2, 3, 5)),
            depth_list=rng.choice((3, 5, 10)),
            drop_parent=rng.choice((0.2, 0.5, 0.9)),
            max_new_tokens=manner.limit,
        )
        examples = [
            Example(f"{name}{begin + i}", rng.choice(DATASETS), "?", ())
            for i in range(min(_AT_ONCE, count - begin))
        ]
        ours = our_search(manner, examples, options)
        for example, own in zip(examples, ours, strict=True):
            mine, theirs = _bare(own), _bare(paper_search(module, manner, example, options))
            apart += mine != theirs
            answers += mine[-1][0] != theirs[-1][0]
            levels += len(theirs)
            ties += sum(len({r for _, r in beams}) < len(beams) for beams in theirs)
    report(
        f"{name}: {count} questions, {levels} levels, {ties} of them with ties among the beams: "
        f"{apart} questions differ, {answers} in the answer"
    )
    return apart


def _bare(levels: Levels) -> Levels:
    """Without commas at the end."""
    return [[(text.rstrip(","), reward) for text, reward in beams] for beams in levels]


def main() -> int:
    parser = argument_parser(__doc__, "search_parity.txt")
    parser.add_argument("--atg", type=Path, required=True, help="a copy of HCY123902/atg-w-fg-rw")
    parser.add_argument("--questions", type=int, default=5000, help="of the first class")
    arguments = parser.parse_args()
    report = Report(arguments.out)
    module = peers.load_paper_search(arguments.atg)
    differ = compare("as the paper", Manner(), arguments.questions, module, report)
    report("\nmeant to differ:")
    few = max(50, arguments.questions // 10)
    compare("ends with a line break", Manner(breaks=0.5), few, module, report)
    compare("runs into the limit", Manner(ends=0.05, limit=6), few, module, report)
    report(f"\nunexpected differences: {differ}")
    return 1 if differ else 0


if __name__ == "__main__":
    raise SystemExit(main())
