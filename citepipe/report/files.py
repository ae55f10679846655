"""The tables as files: a row per system (CSV, Markdown, LaTeX), and all scores in tidy form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from citepipe.data.files import atomic_writer
from citepipe.options import ScoreOptions
from citepipe.progress import say
from citepipe.report.table import COLUMNS, Cell, Key, Row, Run, key, read, table
from citepipe.scoring.alce import AVERAGED

PAPER = {
    "correct": "correctness",
    "recall": "citation_rec",
    "precision": "citation_prec",
    "F1": "citation_f1",
}
"""What Markdown and LaTeX show of each dataset, as the paper's tables do."""

LATEX = str.maketrans({"_": r"\_", "%": r"\%", "±": r"$\pm$", "*": "$^*$", "†": r"$^\dagger$"})


class Block(NamedTuple):
    """A part of the table to read: per column what it is of and what it shows; a line per system,
    its name first."""

    title: str
    heads: list[tuple[str, str]]
    lines: list[list[str]]


def run(
    scores: Sequence[tuple[str, int, Path]],
    starts: Mapping[str, str],
    against: str,
    options: ScoreOptions,
    out: Path,
    out_scores: Path,
) -> str:
    """Write the tables, show one on stderr and return a line that says what was written.

    Args:
        scores: system, seed and score file of every run, in the order of the table.
        starts: by system the one that its training, or its way of answering, starts from.
        against: the system that all are held against.
        options: those of the bootstrap.
        out: a row per system (CSV), and beside it `.md`, `.tex` and `.html`. Figures by the first
            verifier have plain names, those by another end in `_{verifier}`; each is followed by
            its `_low`, `_high`, `_vs_{against}` and `_vs_start`.
        out_scores: a row per figure of each run, with its bootstrap interval over questions (CSV).
    """
    import pandas as pd

    runs: dict[str, dict[int, Run]] = {}
    for system, seed, path in scores:
        runs.setdefault(system, {})[seed] = read(system, seed, path, options)
    figures = [s for own in runs.values() for one in own.values() for s in one.scores.values()]
    verifiers = list(dict.fromkeys(figure.verifier for figure in figures if figure.verifier))
    rows = table(runs, starts, against, options)
    parts = ("", "_low", "_high", f"_vs_{against or 'none'}", "_vs_start")
    records = []
    for row in rows:
        records.append(row._asdict())
        for (place, metric, verifier), cell in records[-1].pop("cells").items():
            other = f"_{verifier}" if verifier in verifiers[1:] else ""
            column = f"{place}_{COLUMNS.get(metric, metric)}{other}"
            records[-1] |= {column + part: x for part, x in zip(parts, cell, strict=True)}
    for path, content in ((out_scores, figures), (out, records)):
        with atomic_writer(path) as stream:
            frame = pd.DataFrame(content)
            frame.to_csv(stream, index=False, float_format="%.4f", lineterminator="\n")
    notes = [*legend(runs, against, options), *differing(runs)]
    short, full = blocks(rows, verifiers, against)
    for line in [*terminal(short), "", *(fill(note, 100) for note in notes), ""]:
        say(line)
    written = {".md": markdown(full, notes), ".tex": latex(full, notes)}
    written[".html"] = html(short, full, notes)
    for suffix, lines in written.items():
        with atomic_writer(out.with_suffix(suffix)) as stream:
            stream.writelines(f"{line}\n" for line in lines)
    return f"table: {len(rows)} systems, {len(figures)} figures, {out}"


def blocks(
    rows: Sequence[Row], verifiers: Sequence[str], against: str
) -> tuple[list[Block], list[Block]]:
    """By verifier: citation F1 with copied share and length, and correctness; and all at once in
    the paper's layout. Columns without any figure are left out."""
    places = dict.fromkeys(place for row in rows for place, *_ in row.cells)
    datasets = [place for place in places if place != "mean"]

    def block(title: str, columns: Mapping[tuple[str, str], Key]) -> Block:
        heads = {h: at for h, at in columns.items() if any(at in row.cells for row in rows)}
        lines = [
            [row.system + (f" = {row.same_as}" if row.same_as else "")]
            + [_cell(row.cells.get(at), row.start, against) for at in heads.values()]
            for row in rows
        ]
        return Block(title, list(heads), lines)

    short, full = [], []
    for verifier in verifiers or [""]:
        by = f" by {verifier}" if verifier else ""
        means = {("mean", name): key("mean", name, verifier) for name in ("copied", "length")}
        for name, title, also in (
            ("citation_f1", "Citation F1", means),
            ("correctness", "Correctness", {}),
        ):
            columns = {(name, place): key(place, name, verifier) for place in ("mean", *datasets)}
            short.append(block(title + by, columns | also))
        columns = {(d, head): key(d, PAPER[head], verifier) for d in datasets for head in PAPER}
        full.append(block(f"Scores{by}", columns | means))
    return [own for own in short if own.heads], full


def _cell(cell: Cell | None, start: str, against: str) -> str:
    if cell is None:
        return "-  "
    marks = "*" * bool(cell.against) + "†" * bool(cell.start and start != against)
    return f"{cell.value:.1f} ±{(cell.high - cell.low) / 2:.1f}{marks:<2}"


def terminal(blocks: Sequence[Block]) -> Iterator[str]:
    """The blocks in columns that stand below each other."""
    for title, heads, lines in blocks:
        yield f"\n{title}:"
        width = max(map(len, ["system", *(label for label, *_ in lines)]))
        for label, *cells in [["system", *(f"{head}  " for _, head in heads)], *lines]:
            yield f"{label:<{width}}{''.join(f'{cell:>13}' for cell in cells)}".rstrip()


def markdown(blocks: Sequence[Block], notes: Sequence[str]) -> Iterator[str]:
    """A table per block, and the notes."""
    for title, heads, lines in blocks:
        yield f"{title}:\n"
        head = [["system", *map(" ".join, heads)], ["---", *["---:"] * len(heads)]]
        yield from (f"| {' | '.join(map(str.strip, line))} |" for line in [*head, *lines])
        yield ""
    yield from (f"- {note}" for note in notes)


def latex(blocks: Sequence[Block], notes: Sequence[str]) -> Iterator[str]:
    """A `tabular` per block, and the notes as comments."""
    for title, heads, lines in blocks:
        groups = ((place, len(list(own))) for place, own in groupby(place for place, _ in heads))
        above = " & ".join(rf"\multicolumn{{{n}}}{{c}}{{{place}}}" for place, n in groups)
        yield f"% {title}\n\\begin{{tabular}}{{l{'r' * len(heads)}}}\n\\hline\n & {above} \\\\"
        for line in [["system", *(head for _, head in heads)], *lines]:
            yield f"{' & '.join(map(str.strip, line)).translate(LATEX)} \\\\"
        yield "\\hline\n\\end{tabular}\n"
    yield from (f"% {note}" for note in notes)


def html(short: Sequence[Block], full: Sequence[Block], notes: Sequence[str]) -> Iterator[str]:
    """A page with a table per block, and the notes."""
    yield "<!doctype html><meta charset=utf-8><title>Scores</title><style>"
    yield "body{font:15px sans-serif;margin:1em}table{border-collapse:collapse;margin:1em 0}"
    yield "caption{text-align:left;font-weight:bold}td,th{padding:.2em .6em;text-align:right}"
    yield "tr{border-bottom:1px solid #ccc}:first-child{text-align:left}</style>"
    for title, heads, lines in [*short, *full]:
        yield f"<table><caption>{escape(title)}</caption>"
        # The titles of the short ones say what they are of.
        shown = [f"{of} {head}" if (title, heads, lines) in full else head for of, head in heads]
        for line in [["system", *shown], *lines]:
            yield f"<tr>{''.join(f'<td>{escape(cell.strip())}' for cell in line)}"
        yield "</table>"
    yield from (f"<p>{escape(note)}" for note in notes)


def legend(
    runs: Mapping[str, Mapping[int, Run]], against: str, options: ScoreOptions
) -> Iterator[str]:
    """What the figures and marks of a table mean."""
    counts: dict[str, int] = {}
    for run in (run for own in runs.values() for run in own.values()):
        counts = {dataset: len(ids) for dataset, ids in run.questions.items()} | counts
    averaged = ", ".join(name for name in AVERAGED if name in counts)
    mean = f"; mean: over {averaged}" if averaged else ""
    asked = ", ".join(f"{name} {n}" for name, n in counts.items())
    yield f"Percent, but length in words; questions: {asked}{mean}."
    yield f"±: half of the {options.confidence:.0%} interval over questions and, of several, seeds."
    yield (f"*: differs from {against}; " if against else "") + (
        "†: differs from its start; = NAME: the same in every verdict."
    )
    yield (
        "Citation F1: of citation recall (statements that their citations support) and precision "
        "(right citations). Correctness: gold answers found; for eli5 and expertqa, claims that "
        "the answer supports, by the verifier. Copied: statements word for word from a document."
    )


def differing(runs: Mapping[str, Mapping[int, Run]]) -> Iterator[str]:
    """A line for every run that was scored on other questions than the first."""
    first: dict[str, tuple[str, frozenset[tuple[str, str]]]] = {}
    for system, own in runs.items():
        for seed, run in own.items():
            for dataset, ids in run.questions.items():
                name, others = first.setdefault(dataset, (f"{system} seed {seed}", ids))
                if ids != others:
                    yield (
                        f"{dataset}: {system} seed {seed} was scored on {len(ids)} questions, "
                        f"{name} on {len(others)}, {len(ids & others)} of them the same: do not "
                        "compare their figures"
                    )
