"""How long it takes to find documents by BM25, beside a plain BM25 of the textbook.

Synthetic passages: of 100 words each, drawn by Zipf's law from a vocabulary, in sentences, with a
title; questions have the words of a passage and a few others. Both sides read the same words and
have to rank the same passages first. Measured on one core are reading files, building the index,
and answering; and the memory that the index takes.

The plain side is a dictionary of postings and a loop over them, as one would write it in an
afternoon. On real text, `--recall FILE` takes a file of questions with documents, puts all
documents into one pool and says how many of a question's own are found again by the question.
"""

from __future__ import annotations

import argparse
import bisect
import gc
import heapq
import itertools
import math
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from machine import RESULTS, Report

from citepipe.data.example import Document
from citepipe.data.files import read_examples
from citepipe.options import RetrievalOptions
from citepipe.retrieve import Retriever, read_passages, words_of

TOP = 5
OPTIONS = RetrievalOptions(passages=["synthetic"])


class PlainBM25:
    """BM25 (Lucene's formula) over postings in a dictionary: the score is computed as it is asked.

    Args:
        passages: their words.
        options: `k1` and `b`.
    """

    def __init__(self, passages: Sequence[Sequence[str]], options: RetrievalOptions) -> None:
        self.k1, self.b, self.total = options.k1, options.b, len(passages)
        self.lengths = [len(words) for words in passages]
        self.mean = sum(self.lengths) / self.total
        self.postings: dict[str, list[tuple[int, int]]] = {}
        for place, words in enumerate(passages):
            for word, count in Counter(words).items():
                self.postings.setdefault(word, []).append((place, count))

    def best(self, question: Sequence[str], k: int) -> list[int]:
        """The best `k` passages; ties by their place."""
        scores: dict[int, float] = {}
        for word in question:
            postings = self.postings.get(word, ())
            odds = (self.total - len(postings) + 0.5) / (len(postings) + 0.5)
            for place, count in postings:
                norm = 1 - self.b + self.b * self.lengths[place] / self.mean
                part = math.log(1 + odds) * count / (count + self.k1 * norm)
                scores[place] = scores.get(place, 0.0) + part
        return heapq.nsmallest(k, scores, key=lambda place: (-round(scores[place], 9), place))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passages", type=int, default=50_000, help="%(default)s")
    parser.add_argument("--questions", type=int, default=200, help="%(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="by turns; %(default)s")
    parser.add_argument("--recall", type=Path, metavar="FILE", help="questions with documents")
    parser.add_argument("--out", type=Path, default=RESULTS / "retrieve.txt", help="%(default)s")
    parsed = parser.parse_args(arguments)
    report = Report(parsed.out, "bm25s", "nltk", "numpy")
    Retriever([Document("", "Warm.")], OPTIONS).find(["warm"], 1)  # The first imports.
    texts, questions = synthetic(parsed.passages, parsed.questions)
    report(
        f"{len(texts)} passages of 100 words, {len(questions)} questions of 8 words, top {TOP}; "
        "one core"
    )
    read_files(texts, report)
    differing = compare(texts, questions, parsed.rounds, report)
    if parsed.recall is not None:
        recall(parsed.recall, report)
    return 1 if differing else 0


def synthetic(passages: int, questions: int) -> tuple[list[Document], list[str]]:
    """Passages and questions; the words of both follow Zipf's law, those asked for are rarer."""
    rng = random.Random(0)
    vocabulary = [_word(rng) for _ in range(60_000)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(vocabulary))))

    def draw(count: int) -> list[str]:
        return [
            vocabulary[bisect.bisect(weights, rng.random() * weights[-1])] for _ in range(count)
        ]

    texts = []
    for number in range(passages):
        sentences = [" ".join(draw(20)).capitalize() + "." for _ in range(5)]
        texts.append(Document(" ".join(draw(2)).title(), " ".join(sentences), id=f"{number:06d}"))
    asked = []
    for _ in range(questions):
        words = rng.choice(texts).text.lower().replace(".", "").split()
        asked.append(" ".join(rng.sample(words, 5) + draw(3)) + "?")
    return texts, asked


def _word(rng: random.Random) -> str:
    syllables = rng.choices(["ba", "ri", "ton", "ing", "le", "sma", "ed", "or", "ci", "vu"], k=4)
    return "".join(syllables[: rng.randint(2, 4)]) + rng.choice(["", "s", "er", "ly", "al"])


def read_files(texts: Sequence[Document], report: Report) -> None:
    """Say how long a tenth of the passages takes to be read from rows, and to be cut from texts."""
    part = texts[: len(texts) // 10]
    with tempfile.TemporaryDirectory() as folder:
        rows, articles = Path(folder, "rows.tsv"), Path(folder, "articles")
        rows.write_text("\n".join(f"{d.id}\t{d.text}\t{d.title}" for d in part), encoding="utf-8")
        articles.mkdir()
        for first in range(0, len(part), 20):
            text = "\n\n".join(document.text for document in part[first : first + 20])
            Path(articles, f"{first:06d}.txt").write_text(text, encoding="utf-8")
        for name, path in (("rows of a table", rows), ("texts of 2,000 words, cut", articles)):
            began = time.perf_counter()
            found = read_passages(OPTIONS.model_copy(update={"passages": [str(path)]}))
            seconds = time.perf_counter() - began
            report(f"reading {name}: {len(found) / seconds:.0f} passages/s")


def compare(
    texts: Sequence[Document], questions: Sequence[str], rounds: int, report: Report
) -> int:
    """Measure both by turns and say so; how many questions they rank differently."""
    index: list[tuple[float, float]] = []
    find: list[tuple[float, float]] = []
    words_seconds: list[float] = []
    found: list[list[str | None]] = []
    plain_found: list[list[str | None]] = []
    for _ in range(rounds):
        gc.collect()
        began = time.perf_counter()
        retriever = Retriever(texts, OPTIONS)
        indexed = time.perf_counter()
        found = [[d.id for d in docs] for docs in retriever.find(questions, TOP)]
        ended = time.perf_counter()
        del retriever
        gc.collect()
        plain_began = time.perf_counter()
        words = words_of([f"{document.title}\n{document.text}" for document in texts], OPTIONS)
        words_read = time.perf_counter()
        plain = PlainBM25(words, OPTIONS)
        plain_indexed = time.perf_counter()
        best = [plain.best(asked, TOP) for asked in words_of(questions, OPTIONS)]
        plain_found = [[texts[i].id for i in places] for places in best]
        plain_ended = time.perf_counter()
        del plain, words
        index.append((indexed - began, plain_indexed - plain_began))
        find.append((ended - indexed, plain_ended - plain_indexed))
        words_seconds.append(words_read - plain_began)
    report(f"rounds by turns: {rounds}; middle of them, ratios from lowest to highest")
    report(f"{'':10}{'ours':>12}{'plain':>12}{'plain/ours':>24}")
    for name, unit, count, times in (
        ("index", "passages/s", len(texts), index),
        ("find", "questions/s", len(questions), find),
    ):
        ours, plain_times = (statistics.median(t) for t in zip(*times, strict=True))
        ratios = sorted(theirs / own for own, theirs in times)
        report(
            f"{name:10}{count / ours:12.0f}{count / plain_times:12.0f}"
            f"{statistics.median(ratios):12.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})  {unit}"
        )
    report(
        f"of which reading words, alike on both sides: {statistics.median(words_seconds):.1f} s; "
        f"an index in {statistics.median(own for own, _ in index):.1f} s"
    )
    differing = sum(a != b for a, b in zip(found, plain_found, strict=True))
    report(f"questions whose top {TOP} differ: {differing} of {len(questions)}")
    tracemalloc.start()
    retriever = Retriever(texts, OPTIONS)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    report(
        f"memory of the index: {kept / len(texts):.0f} bytes per passage, "
        f"{peak / len(texts):.0f} while it is built; the passages' own "
        f"{sum(sys.getsizeof(d.text) + sys.getsizeof(d.title) for d in texts) / len(texts):.0f}"
    )
    del retriever
    return differing


def recall(path: Path, report: Report) -> None:
    """Say how many of the questions' own documents are found in a pool of all documents."""
    examples = [e for e in read_examples(path, "eli5", needs_documents=False) if e.docs]
    pool = list({d.text: d for e in examples for d in e.docs}.values())
    report(
        f"\n{path.name}: {len(examples)} questions with "
        f"{sum(len(e.docs) for e in examples)} documents, a pool of {len(pool)} texts; percent of "
        "a question's documents found, means over questions"
    )
    report(f"{'':34}{'@1':>8}{'@5':>8}{'@10':>8}{'any @5':>8}")
    for name, more in (
        ("as it comes", {}),
        ("without stemmer", {"stemmer": None}),
        ("without stop words", {"stop_words": None}),
        ("without both", {"stemmer": None, "stop_words": None}),
        ("k1 0.9, b 0.4", {"k1": 0.9, "b": 0.4}),
    ):
        options = RetrievalOptions.model_validate({"passages": ["pool"], **more})
        found = Retriever(pool, options).find([e.question for e in examples], 10)
        own = [{d.text for d in e.docs} for e in examples]
        shares = [
            100
            * statistics.fmean(
                len(gold & {d.text for d in docs[:k]}) / len(gold)
                for gold, docs in zip(own, found, strict=True)
            )
            for k in (1, 5, 10)
        ]
        some = 100 * statistics.fmean(
            bool(gold & {d.text for d in docs[:5]}) for gold, docs in zip(own, found, strict=True)
        )
        report(f"  {name:32}" + "".join(f"{share:8.1f}" for share in [*shares, some]))


if __name__ == "__main__":
    sys.exit(main())
