"""How long the parts that need no model take: hostile texts, text metrics, the command's start.

Three measurements in one run: texts of a million characters, each parsed, cleaned, normalised and
rewarded as a sentence answer and as a list; generated answers of 100 words with two references
each, scored by the command without a verifier; and the command's help, which is its start.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from machine import Report

from citepipe.data.example import Example
from citepipe.judge import CitationVerdict, Judgement, StatementVerdict
from citepipe.miniature.language import words
from citepipe.options import RewardOptions
from citepipe.rewards import find_rewards, place
from citepipe.text.normalize import clean_output, normalize_answer
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import remove_citations, split_answer

CHARACTERS = 1_000_000
# Each is repeated up to a million characters.
PIECES = (
    *("a", "9", "é", "日本", "👩‍👩‍👧", "e\u0301", "\ud800", "The "),
    *("U.S. ", "A.B.", "a.b", "a b. ", "Mr. ", "1. ", ". ", ".", "...", "? ", "?!", "a?", "a.\xa0"),
    *("[1] ", "[1]. ", "[1]", "[", "[1", "[1, ", "[1, 2]", "]", " |", "<|im_end|>", "<|im_"),
    *(",", "a, ", " ", "\n", "a\n", '"', "“", '." ', "'s", "(", "-", ":", "*"),
)
METRICS = "length,str_em,rougeLsum"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=1000, help="answers to score; %(default)s")
    parser.add_argument("--out", type=Path, help="a file for the lines that are printed")
    parsed = parser.parse_args(arguments)
    report = Report(parsed.out, "nltk", "rouge-score")
    report("\nseconds for a text of 1,000,000 characters: as sentences, as a list")
    split_text("a. ", "asqa")  # The first call imports and compiles.
    for piece in PIECES:
        sentences, listed = split_text(piece, "asqa"), split_text(piece, "qampari")
        report(f"  {piece!a:16} {sentences:6.2f} {listed:6.2f}")

    starts = sorted(run("--help") for _ in range(7))
    report(f"\ncitepipe --help: best {starts[0]:.2f} s, median {statistics.median(starts):.2f} s")

    with tempfile.TemporaryDirectory() as folder:
        one, many = Path(folder, "one.json"), Path(folder, "many.json")
        rows = generated(parsed.answers)
        one.write_text(json.dumps({"data": rows[:1]}), encoding="utf-8")
        many.write_text(json.dumps({"data": rows}), encoding="utf-8")
        options = ("--dataset", "asqa", "--metrics", METRICS)
        least = min(run("score", str(one), *options) for _ in range(3))
        whole = min(run("score", str(many), *options) for _ in range(3))
    report(f"citepipe score --metrics {METRICS}: {parsed.answers} answers {whole:.2f} s,")
    report(f"  one answer {least:.2f} s; the difference is {whole - least:.2f} s")
    return 0


def split_text(piece: str, dataset: str) -> float:
    """Seconds from a raw answer to rewards on its tokens, one token per four characters."""
    raw = (piece * (CHARACTERS // len(piece) + 1))[:CHARACTERS]
    splitter = load_splitter()
    gc.collect()
    began = time.perf_counter()
    cleaned = clean_output(raw)
    statements = split_answer(cleaned, dataset, splitter)
    normalize_answer(remove_citations(cleaned))
    verdicts = (
        StatementVerdict(s, True, tuple(CitationVerdict(c, True) for c in s.citations[:3]))
        for s in statements
    )
    example = Example("1", dataset, "", ())
    rewards = find_rewards(example, raw, Judgement(tuple(verdicts), ()), RewardOptions())
    place(rewards, [(start, start + 4) for start in range(0, len(raw), 4)])
    return time.perf_counter() - began


def generated(count: int) -> list[dict[str, object]]:
    """ASQA rows: answers of five cited sentences of twenty words, with two references each."""
    rng = random.Random(0)
    vocabulary = list(words())

    def sentence(end: str) -> str:
        return " ".join(rng.choices(vocabulary, k=20)).capitalize() + end

    def text(end: str = ".") -> str:
        return " ".join(sentence(end) for _ in range(5))

    return [
        {
            "id": str(i),
            "question": "What is told?",
            "docs": [{"title": "A", "text": text()}],
            "qa_pairs": [{"question": "", "short_answers": [rng.choice(vocabulary)]}],
            "annotations": [{"long_answer": text()}, {"long_answer": text()}],
            "output": text(" [1]."),
        }
        for i in range(count)
    ]


def run(*arguments: str) -> float:
    """Seconds that the command takes."""
    began = time.perf_counter()
    subprocess.run(
        [str(Path(sys.executable).with_name("citepipe")), *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
