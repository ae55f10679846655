"""The report that people open: one HTML file with the finding, the table, figures, and every answer
with the verdicts on it.

`page.html`, `page.css` and `page.js` beside this file are the page; what it shows is put into it
here. The answers travel as JSON, compressed, and the script turns them into text nodes only:
nothing that a model wrote is ever markup.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, FiniteFloat, TypeAdapter

from citepipe.data.example import Example
from citepipe.data.files import atomic_writer, read_json, read_jsonl
from citepipe.data.validate import validated
from citepipe.errors import InputError
from citepipe.options import ScoreOptions
from citepipe.provenance import digest_of
from citepipe.report.files import Block, blocks, differing, legend
from citepipe.report.table import Key, Row, Run, key, run_of, table
from citepipe.scoring.alce import CORRECTNESS
from citepipe.scoring.results import Scored, ScoredAnswers
from citepipe.text.normalize import normalize_answer
from citepipe.text.statements import ended, remove_citations

MODES = {
    "s": ("supported", "supported by what it cites", "ok"),
    "n": ("needless", "supported, with a citation that it does not need", "warn"),
    "u": ("not supported", "not supported by what it cites", "bad"),
    "p": ("partly supported", "partly supported by what it cites", "warn"),
    "e": ("supported elsewhere", "supported by a document that it does not cite", "bad"),
    "o": ("out of range", "cites a document that is not there", "bad"),
    "r": ("repeated", "says again what was said before", "warn"),
    "c": ("cites nothing", "cites nothing", "bare"),
    "d": ("refusal", "says that the documents do not answer", "bare"),
}
"""Verdicts on statements by their letter: the reason of `score` (but for `needless`, of which it is
`supported`), what it means, and how it is coloured."""

CITATIONS = {
    "s": ("supports", "ok"),
    "w": ("not supported", "bad"),
    "p": ("partly supported", "warn"),
    "n": ("needless", "warn"),
    "r": ("repeated", "warn"),
    "o": ("out of range", "bad"),
}
"""Verdicts on citations by their letter: the reason, and how it is coloured."""

CAP = 30_000_000
"""Characters that the answers may take in the file."""

CAP_RAW = 200_000_000
"""Bytes of them that a browser is asked to unpack."""


class Report(NamedTuple):
    """What a page shows: the answers (`collect`), and what stands above them."""

    content: dict[str, Any]
    finding: list[str]
    tables: tuple[list[Block], list[Block]]
    notes: list[str]
    curves: Path | None

    def html(self, data: str = "", notes: Sequence[str] = (), ask: str = "") -> str:
        """The page, with the answers in it as `packed` has them, or else for a server that gives
        them at `data` and perhaps answers questions, of which `ask` says by what."""
        return _page(self.finding, self.tables, [*self.notes, *notes], self.curves, data, ask)


def write(report: Report, out: Path) -> str:
    """Write the page to an HTML file, as far as the answers fit into one, and return a line that
    says what is in it."""
    data, left_out = packed(report.content)
    notes = []
    if left_out:
        notes.append(
            f"{left_out} of {len(report.content['questions'])} questions are left out below, "
            "because a page can hold no more; figures and counts are of all. citepipe view shows "
            "all of them."
        )
    with atomic_writer(out) as stream:
        stream.write(report.html(data, notes))
    n = sum(len(question["answers"]) for question in report.content["questions"])
    systems = len(report.content["systems"])
    more = f", {left_out} questions left out" if left_out else ""
    return f"report: {n} answers of {systems} systems{more}, {out}"


def gather(
    files: Sequence[Scored],
    answers: Iterable[Path],
    starts: Mapping[str, str],
    against: str,
    options: ScoreOptions,
    trained: Sequence[str] = (),
    curves: Path | None = None,
    samples: Iterable[tuple[str, int, Path, Path]] = (),
    models: Iterable[tuple[str, int, Path]] = (),
) -> Report:
    """Collect what a page shows.

    Args:
        files: the score files, in the order of the table.
        answers: files of answers, among them those that were scored: they are known by digest.
        starts: by system the one that its training, or its way of answering, starts from.
        against: the system that all are held against; empty for none.
        options: those of the bootstrap.
        trained: the systems among which the best is looked for; by default all.
        curves: the learning curves (SVG).
        samples: by system and seed the answers that were chosen to learn from (`answers.json`), and
            those that these were chosen among (`candidates.jsonl`).
        models: system, seed and directory of those that learnt from rewards.

    Raises:
        InputError: a score file is broken, or its answers are not among the files of answers.
    """
    runs: dict[str, dict[int, Run]] = {}
    for file in files:
        own = run_of(file.system, file.seed, file.path, file.results, options)
        runs.setdefault(file.system, {})[file.seed] = own
    rows = table(runs, starts, against, options)
    verifiers = list(dict.fromkeys(name for file in files for name in file.results))
    try:
        content = collect(files, answers)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        names = ", ".join(dict.fromkeys(str(file.path) for file in files))
        raise InputError(
            f"{names}: expected score files with verdicts, broken at {error}"
        ) from None
    content |= {
        "best": best_of(rows, verifiers, trained),
        "points": [_point(row, verifiers) for row in rows],
        "samples": [
            *(learnt(own[-1], sampled, own) for own in samples),
            *(learnt(own[-1] / "samples.jsonl", practised, own) for own in models),
        ],
    }
    return Report(
        content,
        list(findings(rows, verifiers, against, trained)),
        blocks(rows, verifiers, against),
        [*legend(runs, against, options), *differing(runs)],
        curves,
    )


# -- the answers and the verdicts on them


def collect(files: Sequence[Scored], answers: Iterable[Path]) -> dict[str, Any]:
    """The questions with their passages and answers, a verdict per statement, citation and gold
    answer under each verifier, and how often each is given (by verifier, system and dataset)."""
    results = [
        (file, verifier, dataset, result)
        for file in files
        for verifier, own in file.results.items()
        for dataset, result in own.items()
    ]
    systems, verifiers, datasets = (
        list(dict.fromkeys(names))
        for names in zip(*((file.system, *names) for file, *names, _ in results), strict=True)
    )
    given = ScoredAnswers(answers)
    questions: dict[Any, dict[str, Any]] = {}
    found: dict[Any, dict[str, Any]] = {}
    counts: Counter[tuple[int, int, int, str]] = Counter()
    for file, verifier, dataset, result in results:
        at = verifiers.index(verifier), systems.index(file.system), datasets.index(dataset)
        again: Counter[Any] = Counter()
        for example, row in given.with_rows(file, dataset, result):
            # The same question, whichever file it is in; perhaps once more in one file.
            place: Any = row["dataset"], example.question, row["documents"]
            place = (*place, "" if example.is_numbered else example.id)
            again[place] += 1
            place = (*place, again[place])
            if (question := questions.get(place)) is None:
                question = questions[place] = {
                    "n": len(questions),
                    "dataset": at[2],
                    "id": example.id,
                    "text": example.question,
                    "docs": [(d.title, d.text if d.sent is None else d.sent) for d in example.docs],
                    "gold": _gold(example),
                    "answers": [],
                }
            if (answer := found.get((place, file.system, file.seed))) is None:
                answer = found[place, file.system, file.seed] = {
                    "system": at[1],
                    "seed": file.seed,
                    "by": [None] * len(verifiers),
                    **_read(example, row),
                }
                question["answers"].append(answer)
            stated, cites = letters(row)
            hits = "".join(str(int(own["hit"])) for own in row["gold"])
            correct = (row.get(name) for name in CORRECTNESS.values())
            figures = [row.get("citation_rec"), row.get("citation_prec")]
            figures.append(next((x for x in correct if x is not None), None))
            rounded = [None if x is None else round(x, 1) for x in figures]
            answer["by"][at[0]] = [stated, cites, hits, *rounded]
            own = {"gold": len(hits), "missing": hits.count("0"), "again": len(answer["again"])}
            own |= {"answers": 1, "empty": int(not stated)}
            for name, n in (Counter(stated) + Counter(own)).items():
                counts[*at, name] += n
    return {
        "digest": digest_of([systems, sorted(given.by_digest)]),
        "systems": systems,
        "seeds": sorted({file.seed for file in files}),
        "datasets": datasets,
        "verifiers": verifiers,
        "modes": MODES,
        "citations": CITATIONS,
        "counts": [[*at, n] for at, n in counts.items()],
        "questions": list(questions.values()),
    }


def _read(example: Example, row: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as it was read: the statements that say what one before them says; and, as JSON
    that is read when the answer is shown, statements and citations as characters of its text, and
    where in the documents decides on each."""
    statements = row["statements"]
    claims = [normalize_answer(remove_citations(own["text"])) for own in statements]
    first = {claim: n for n, claim in reversed([*enumerate(claims)])}
    places = [
        [own["span"] for own in statements],
        [own["cited"] for own in statements],
        [[*own["span"], own["statement"]] for own in row["citations"]],
        [_decisive(example, own["passage"]) for own in statements],
    ]
    again = [n for n, claim in enumerate(claims) if claim and first[claim] < n]
    return {
        "text": example.output,
        "again": again,
        "places": json.dumps(places, separators=(",", ":")),
    }


def letters(row: Mapping[str, Any]) -> tuple[str, str]:
    """A letter of `MODES` per statement of a row of a score file, of `CITATIONS` per citation."""
    by_reason = {name: letter for letter, (name, *_) in MODES.items()}
    of_citation = {name: letter for letter, (name, _) in CITATIONS.items()}
    wrong = {own["statement"] for own in row["citations"] if not own["right"]}
    stated = [by_reason[own["reason"]] for own in row["statements"]]
    stated = ["n" if x == "s" and n in wrong else x for n, x in enumerate(stated)]
    return "".join(stated), "".join(of_citation[own["reason"]] for own in row["citations"])


def _decisive(example: Example, passage: Mapping[str, Any] | None) -> list[int] | None:
    """The document whose sentence decides on a statement, and that one's characters there."""
    if passage is None:
        return None
    doc = example.docs[passage["document"] - 1]
    start = (doc.text if doc.sent is None else doc.sent).find(passage["text"])
    return [passage["document"], start, start + len(passage["text"])]


def _gold(example: Example) -> list[str]:
    if example.judged_as == "asqa":
        return [" / ".join(pair.short_answers) for pair in example.qa_pairs]
    if example.judged_as == "qampari":
        return [" / ".join(aliases) for aliases in example.answers]
    return list(example.claims)


class _Question(BaseModel):
    """A question with texts: each with its reward, the rewards where they stand in it, what else is
    to be said of it, and whether it was chosen."""

    id: str
    text: str
    samples: list[tuple[str, FiniteFloat, list[tuple[int, int, dict[str, FiniteFloat]]], str, bool]]


_QUESTIONS = TypeAdapter(list[_Question])


def learnt(path: Path, read: Callable[..., dict[str, Any]], own: Sequence[Any]) -> dict[str, Any]:
    """What `sampled` or `practised` says of a run; InputError if its file is broken."""
    try:
        found = read(*own)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected answers with their rewards, broken at {error}"
        ) from None
    questions = validated(_QUESTIONS, found["questions"], str(path))
    return found | {"questions": [question.model_dump() for question in questions]}


def sampled(system: str, seed: int, answers: Path, candidates: Path) -> dict[str, Any]:
    """The samples of the first questions that a system learnt from, whose rewards are known where
    they stand, the questions as of `_Question`."""
    rows = {(row["dataset"], row["id"]): row for row in read_json(answers)}
    questions: list[dict[str, Any]] = []
    for record in read_jsonl(candidates):
        row = rows.get((record["dataset"], record["id"]))
        if row is None or "standing" not in record["candidates"][0]:
            continue
        drawn = Counter(own["text"] for own in record["candidates"])
        greedy = [record["greedy"]] if record.get("greedy") else []
        known = {own["text"]: own for own in [*record["candidates"], *greedy]}
        texts = []
        for text, own in sorted(known.items(), key=lambda item: -item[1]["reward"]):
            times, is_chosen = drawn[text], ended(text, row["dataset"]) in row["output"]
            said = ["chosen"] * is_chosen + ["greedy"] * (own in greedy)
            said += [f"drawn {times} times"] * (times > 1)
            texts.append((text, own["reward"], own["standing"], ", ".join(said), is_chosen))
        questions.append({"id": record["id"], "text": row["question"], "samples": texts})
    about = f"{len(questions)} of {len(rows)} questions that were learnt from"
    return {"run": f"{system} seed {seed}", "about": about, "questions": questions}


def practised(system: str, seed: int, model: Path) -> dict[str, Any]:
    """The answers to some dev questions over training on rewards, step by step, as `sampled` has
    those of samples; those whose rewards changed most come first."""
    kept = read_json(model / "citepipe.json")["step"]
    questions: dict[str, dict[str, Any]] = {}
    for row in read_jsonl(model / "samples.jsonl"):
        own = questions.setdefault(row["question"], {"id": "", "text": row["question"]})
        is_kept = row["step"] == kept
        said = f"step {row['step']}" + ", kept" * is_kept
        reward = round(row["reward"], 6) or 0.0  # and not -0.0
        sample = (row["answer"], reward, row["standing"], said, is_kept)
        own.setdefault("samples", []).append(sample)

    def change(question: Mapping[str, Any]) -> float:
        rewards = [reward for _, reward, *_ in question["samples"]]
        return max(rewards) - min(rewards)

    ordered = sorted(questions.values(), key=change, reverse=True)
    about = f"{len(questions)} dev questions, answered at each evaluation"
    return {"run": f"{system} seed {seed}", "about": about, "questions": ordered}


def packed(content: Mapping[str, Any], cap: int = CAP, cap_raw: int = CAP_RAW) -> tuple[str, int]:
    """The content as JSON, compressed, in base64; if that is more than may be, without some of each
    dataset's last questions. And how many are left out."""
    share, keep = 1.0, content["questions"]
    while True:
        raw = as_json({**content, "questions": keep})
        data = base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode()
        fits = min(1.0, cap / len(data), cap_raw / len(raw))
        if fits == 1 or share == 0:
            return data, len(content["questions"]) - len(keep)
        share = share * fits * 0.97 if share * fits * len(content["questions"]) > 1 else 0
        keep = []
        for dataset in range(len(content["datasets"])):
            own = [q for q in content["questions"] if q["dataset"] == dataset]
            keep += own[: int(share * len(own))]


def as_json(content: Mapping[str, Any]) -> bytes:
    """The content for the page's script: a passage in full where it comes first, after that its
    number. Half of a pair, which is not Unicode, becomes a question mark.

    What belongs to a question is near it, so that its answers, which repeat each other and the
    passages, compress well.
    """
    known: dict[tuple[str, str], int] = {}

    def once(doc: tuple[str, str]) -> tuple[str, str] | int:
        if doc in known:
            return known[doc]
        known[doc] = len(known)
        return doc

    questions = [{**q, "docs": [once(doc) for doc in q["docs"]]} for q in content["questions"]]
    made = {**content, "questions": questions}
    return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


# -- what is said first


def best_of(rows: Sequence[Row], verifiers: Sequence[str], among: Sequence[str] = ()) -> str:
    """The system with the highest citation F1, in the mean or else on the first dataset."""
    at = _headline(rows, verifiers, "citation_f1")
    having = [row for row in rows if at in row.cells]
    chosen = [row for row in having if row.system in among] or having
    return max(chosen, key=lambda row: row.cells[at].value).system if chosen else ""


def _headline(rows: Sequence[Row], verifiers: Sequence[str], metric: str, which: int = 0) -> Key:
    places = dict.fromkeys(place for row in rows for place, *_ in row.cells)
    place = "mean" if "mean" in places else next(iter(places), "")
    return key(place, metric, verifiers[which])


def findings(
    rows: Sequence[Row], verifiers: Sequence[str], against: str, among: Sequence[str] = ()
) -> Iterator[str]:
    """The result in sentences."""
    own, best = {row.system: row for row in rows}, best_of(rows, verifiers, among)
    at = _headline(rows, verifiers, "citation_f1")
    if best not in own:
        yield "No citations were scored."
        return

    def held(at: Key) -> str:
        """Its figure with the interval, and how far it is from that of `against` and its start."""
        cell, start, parts = own[best].cells[at], own[best].start, []
        for other, sign in {start: cell.start, against: cell.against}.items():
            there = own[other].cells.get(at) if other in own and other != best else None
            if there is not None:
                chance = "" if sign else ", which may be chance"
                named = f"its start, {other}" if other == start else other
                parts.append(f"{cell.value - there.value:+.1f} against {named}{chance}")
        differs = f"; {'; '.join(parts)}" if parts else ""
        return f"{cell.value:.1f} ({cell.low:.1f} to {cell.high:.1f}){differs}"

    where = "the mean of the datasets" if at[0] == "mean" else at[0]
    by = "Citation F1 by"
    if sum(at in row.cells for row in rows) > 1:
        trained = " of the systems that were trained" if among else ""
        yield f"{best} has the highest citation F1{trained}."
        by = "By"
    yield f"{by} {at[2]}, {where}: {held(at)}."
    value = own[best].cells[at].value
    higher = [row for row in rows if at in row.cells and row.cells[at].value > value]
    if higher:
        named = ", ".join(f"{row.system} {row.cells[at].value:.1f}" for row in higher)
        yield f"Higher, but not trained here: {named}."
    for which, verifier in enumerate(verifiers[1:], 1):
        at = _headline(rows, verifiers, "citation_f1", which)
        having = [row for row in rows if at in row.cells and row not in higher]
        if best in [row.system for row in having]:
            first = max(having, key=lambda row: row.cells[at].value).system
            agreed = "" if first == best else f" {first} is first there."
            yield f"By {verifier}: {held(at)}.{agreed}"
    at = _headline(rows, verifiers, "correctness")
    if at in own[best].cells:
        yield f"Correctness: {held(at)}."


def _point(row: Row, verifiers: Sequence[str]) -> dict[str, Any]:
    """A system's figures with intervals by dataset (or `mean`) and verifier, for the charts."""
    values: dict[str, dict[str, list[float]]] = {}
    places = dict.fromkeys(place for place, *_ in row.cells)
    metrics = ("citation_f1", "correctness", "citation_rec", "citation_prec")
    for place, verifier, metric in product(places, verifiers, metrics):
        if cell := row.cells.get(key(place, metric, verifier)):
            figures = [round(x, 1) for x in (cell.value, cell.low, cell.high)]
            values.setdefault(f"{place} {verifier}", {})[metric] = figures
    return {"system": row.system, "values": values}


# -- the page


def _page(
    found: Iterable[str],
    tables: tuple[list[Block], list[Block]],
    notes: Sequence[str],
    curves: Path | None,
    data: str,
    ask: str,
) -> str:
    here = Path(__file__).parent
    script = (here / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    reach = "'none'" if data else "'self'"
    figure = ""
    if curves is not None and curves.exists():
        drawn = base64.b64encode(curves.read_bytes()).decode()
        alt = "Learning curves: a panel per fine-tuned system, a row per one that learnt by rewards"
        figure = f'<img class="drawn" alt="{alt}" src="data:image/svg+xml;base64,{drawn}">'
    field = ""
    if ask:
        field = (
            '<section id="ask" aria-label="Ask"><h2>Ask</h2><form class="controls" action="ask" '
            'target="_blank"><label>question <input name="question" maxlength="1000" required>'
            f'</label><button>ask</button></form><p class="hint">{escape(ask)}</p></section>'
        )
    short, full = tables
    parts = {
        "style": (here / "page.css").read_text(encoding="utf-8"),
        "script": script,
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; connect-src {reach}",
        "finding": "".join(f"<p>{escape(line)}</p>" for line in found),
        "ask": field,
        "tables": "".join(map(_table, short[:2])),
        "more": "".join([*map(_table, short[2:]), *(_table(own, True) for own in full)]),
        "notes": "".join(f"<li>{escape(note)}</li>" for note in notes),
        "curves": figure,
        "data": data,
    }
    template = (here / "page.html").read_text(encoding="utf-8")
    # In one pass: what is put in is not looked into.
    return re.sub(r"\{\{(\w+)\}\}", lambda name: parts[name[1]], template)


def _table(block: Block, is_full: bool = False) -> str:
    """A block of the table; a bar behind each percentage."""
    heads = "".join(
        f"<th scope=col>{escape(f'{place} {label}' if is_full else label)}</th>"
        for place, label in block.heads
    )
    lines = ""
    for name, *cells in block.lines:
        shown = ""
        for cell, head in zip(cells, block.heads, strict=True):
            value = cell.split(" ")[0]
            bar = "" if value == "-" or "length" in head else f' style="--v:{value}"'
            shown += f"<td{bar}>{escape(cell.strip())}</td>"
        system = escape(name.partition(" = ")[0])
        link = f'<a href="#system={system}">{escape(name)}</a>'
        lines += f"<tr><th scope=row>{link}</th>{shown}</tr>"
    return (
        f"<div class=wide tabindex=0 role=region aria-label='{escape(block.title)}'><table>"
        f"<caption>{escape(block.title)}</caption><thead><tr><th scope=col>system</th>{heads}</tr>"
        f"</thead><tbody>{lines}</tbody></table></div>"
    )
