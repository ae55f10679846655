"""Does anything that is read cause more than one clear line? Every reader is given damaged input.

    python benchmarks/fuzz.py --inputs 1000000

A reader's input begins as it should be. Values of it are exchanged for odd ones, left out or
doubled, texts get odd pieces, bytes are flipped, cut and moved. A reader may return, or refuse with
an InputError of one line. Whatever else it raises, or more than five seconds, is a finding, printed
with what makes it again (`--only READER --first NUMBER --inputs 1`).
"""

from __future__ import annotations

import csv
import io
import json
import random
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from common import BASE, Report, argument_parser
from odd_answers import FRAGMENTS

import citepipe
from citepipe.config import load_config
from citepipe.data.files import each_example, read_json
from citepipe.data.prompts import read_prompt_file
from citepipe.errors import InputError
from citepipe.inputs import absent_inputs, localise
from citepipe.models.pretrained import check_directory
from citepipe.models.released import read_pickled
from citepipe.options import RetrievalOptions, ScoreOptions
from citepipe.report.table import run_of
from citepipe.retrieve import read_passages
from citepipe.runstate import read_journal
from citepipe.scoring.results import read_results
from citepipe.sources import folder_of, is_archive, local_path, unpack
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import read_answer
from citepipe.verify.base import Pair
from citepipe.verify.cache import DecisionCache
from citepipe.verify.lexical import LexicalVerifier
from citepipe.verify.load import check_spec

_PATIENCE = 5  # seconds
_ROWS = 50  # in a file, each of which is an input
_ENOUGH = 20  # findings after which a reader is given up
_SPLITTER, _LEXICAL = load_splitter(), LexicalVerifier()
DOCS = [
    {"title": "Arle Mill", "text": "Arle Mill was built in 1820 by John Hart.", "id": "7"},
    {"title": "John Hart", "text": "John Hart owned three mills.", "sent": "three mills"},
]
ROW: dict[str, Any] = {
    "id": "q1",
    "dataset": "asqa",
    "question": "When was Arle Mill built, and by whom?",
    "docs": DOCS,
    "output": "Arle Mill was built in 1820 by John Hart [1][2]. John Hart owned four mills [2].",
    "answer": "In 1820, by John Hart.",
    "qa_pairs": [{"question": "When?", "short_answers": ["1820", "in 1820"]}],
    "answers": [["1820"], ["John Hart", "Hart"]],
    "claims": ["Arle Mill was built in 1820."],
    "annotations": [{"long_answer": "It was built in 1820."}],
}
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 0.5, 1e308, -0.0, float("nan"), float("inf"), 10**30),
    *(
        "",
        " ",
        "\x00",
        "\ud800",
        "\ufeff",
        "\u202e",
        "e\u0301",
        "𝟙",
        "[1]",
        "1",
        "lexical",
        "../..",
        "/",
    ),
    *("{Q}", "%s", "http://[", "a" * 5000, "\n", "\r", "NaN", "os:system?x", "own", "qampari"),
    *([], {}, [[]], [None], {"": None}, {"a": {"a": {}}}, ["a", ["b"]], [0], [{}]),
)
PIECES = (
    *FRAGMENTS,
    *(odd for odd in ODD if isinstance(odd, str)),
    "<b>",
    "&amp;",
    "```",
    "---\n",
    "# ",
)
SPECS = ("lexical", "google/t5_xxl_true_nli_mixture?dtype=4bit", "a/b?label=1", "x.y:z?a", "./a")
ADDRESSES = (
    "https://drive.google.com/drive/folders/16YihOAL6sIytNCKtrV7rU8SXAv8hmJVH#a.json",
    "https://example.org/a/b.zip?x=1#c/d.json",
    "https://huggingface.co/datasets/a/b/resolve/main/c.json",
    "hf://a/b@main/c",
)

Reader = tuple[float, Callable[[random.Random, Path], Any], Callable[[Any], Any]]
READERS: dict[str, Reader] = {}


def reader(name: str, weight: float, make: Callable[[random.Random, Path], Any]) -> Any:
    """Add what reads the inputs that `make` makes, in a share of them all."""

    def add(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
        READERS[name] = weight, make, read
        return read

    return add


def text(rng: random.Random, text: str) -> str:
    """A text with odd pieces put in, left out and moved."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        start = rng.randint(0, len(text))
        end = min(len(text), start + rng.choice((0, 0, 1, 3, 20)))
        piece = rng.choice((rng.choice(PIECES), text[end : end + 9], chr(rng.randrange(0x110000))))
        text = text[:start] + piece + text[end:]
    return text


def odd(rng: random.Random, value: Any) -> Any:
    """A JSON value with some of its parts exchanged, left out, doubled or renamed."""
    value = deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(value))
        if not places:
            return rng.choice(ODD)
        holder, key = rng.choice(places)
        own, kind = holder[key], rng.randrange(5)
        if kind == 0 and isinstance(own, str):
            holder[key] = text(rng, own)
        elif kind == 1:
            del holder[key]
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, deepcopy(own))
        elif kind == 2:
            holder[rng.choice((text(rng, str(key)), *map(str, range(3))))] = own
        elif kind == 3:
            other, place = rng.choice(places)
            # Deep copies, or a value could hold itself.
            holder[key] = (
                deepcopy(other[place])
                if place in range(len(other)) or (isinstance(other, dict) and place in other)
                else own
            )
        else:
            holder[key] = deepcopy(rng.choice(ODD))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, own in list(items):
        yield value, key
        if isinstance(own, (dict, list)):
            yield from _places(own)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes flipped, cut, moved and put in."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, size = rng.randint(0, len(made)), rng.choice((1, 2, 4, 30))
        kind = rng.randrange(5)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del made[at : at + size]
        elif kind == 2:
            made[at:at] = rng.randbytes(size)
        elif kind == 3:
            made[at : at + size] = rng.choice((b"\xff", b"\x00", b'"', b"}", b",")) * size
        else:
            del made[at:]
    return bytes(made)


def dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)


def file(name: str, make: Callable[[random.Random], bytes | str]) -> Any:
    """A way to make a file of this name."""

    def write(rng: random.Random, folder: Path) -> Path:
        content = make(rng)
        path = folder / name
        path.write_bytes(content.encode(errors="replace") if isinstance(content, str) else content)
        return path

    return write


def table(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    lines = csv.writer(stream)
    lines.writerows([["question", "output", "doc1", "answer"], ["Who?", "Hart [1].", "Hart", "x"]])
    return stream.getvalue()


def archive(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("a/b.json", dumped(ROW))
            packed.writestr("../c.txt", "c")
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as packed:
            for name in ("a/b.json", "c.txt"):
                member = tarfile.TarInfo(name)
                member.size = 3
                packed.addfile(member, io.BytesIO(b"abc"))
    return stream.getvalue()


def pickled() -> bytes:
    stream = io.BytesIO()
    torch.save({"a.weight": torch.ones(2, 3), "b": torch.zeros(1)}, stream)
    return stream.getvalue()


def parquet() -> bytes:
    stream = io.BytesIO()
    pd.DataFrame([{"question": "Who?", "output": "Hart [1].", "docs": DOCS}] * 2).to_parquet(stream)
    return stream.getvalue()


def database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        DecisionCache(path).put((bytes([n]) * 32, n % 2 == 0) for n in range(200))
        return path.read_bytes()


def scored() -> dict[str, Any]:
    own = citepipe.score([ROW], "lexical", dataset="asqa")
    return json.loads(json.dumps(own))  # type: ignore[no-any-return]


CONFIGS = [
    yaml.safe_load(path.read_text())
    for path in (BASE.parents[2] / "config.yaml", *(BASE.parents[2] / "experiments").glob("*.yaml"))
]
ZIP, TAR, PICKLE, PARQUET, DATABASE = (
    archive("zip"),
    archive("tar"),
    pickled(),
    parquet(),
    database(),
)


@reader("rows, JSON", 20, file("rows.json", lambda r: dumped([odd(r, ROW) for _ in range(_ROWS)])))
@reader("rows, JSON lines", 20, file("r.jsonl", lambda r: "\n".join(
    damaged(r, dumped(ROW).encode()).decode(errors="replace") for _ in range(_ROWS))))  # fmt: skip
@reader("rows, CSV", 3, file("rows.csv", lambda r: text(r, table([]))))
@reader("rows, bytes", 3, file("rows.json", lambda r: damaged(r, dumped([ROW]).encode())))
@reader("rows, Parquet", 1, file("rows.parquet", lambda r: damaged(r, PARQUET)))
def _(path: Path) -> int:
    return sum(1 for _ in each_example(path))


@reader("answers as text", 25, lambda r, _: (text(r, text(r, ROW["output"])), r.choice(
    ("asqa", "qampari", "own")), r.choice(("sane", "alce"))))  # fmt: skip
def _(given: Any) -> None:
    raw, dataset, rules = given
    read_answer(raw, dataset, _SPLITTER, rules, ("Arle Mill", "John Hart"), noting=True)


@reader(
    "pairs for lexical", 8, lambda r, _: Pair(text(r, DOCS[0]["text"]), text(r, DOCS[1]["text"]))
)
def _(pair: Pair) -> None:
    _LEXICAL.entails([pair])


@reader("rows, rewarded", 3, lambda r, _: [odd(r, ROW)])
def _(rows: Any) -> None:
    citepipe.reward(rows, "lexical")


@reader("rows, scored", 2, lambda r, _: [odd(r, ROW), ROW])
def _(rows: Any) -> None:
    citepipe.score(rows, "lexical")


@reader("configurations", 5, lambda r, _: odd(r, r.choice(CONFIGS)))
def _(raw: Any) -> None:
    if isinstance(raw, dict):
        absent_inputs(localise(load_config(raw))[0])


@reader("score files", 2, file("s.json", lambda r: dumped(odd(r, SCORED))))
def _(path: Path) -> None:
    for own in read_results(path).values():
        run_of("a", 0, path, own, ScoreOptions(resamples=2))


@reader("prompt files", 2, file("p.json", lambda r: dumped(odd(r, PROMPT))))
def _(path: Path) -> None:
    read_prompt_file.__wrapped__(str(path))  # it keeps what it has read


@reader(
    "passages, Markdown", 2, file("a.md", lambda r: text(r, "# A\n\nb c.\n\n```\nd\n```\n\n- e\n"))
)
@reader("passages, JSON lines", 2, file("a.jsonl", lambda r: dumped(odd(r, DOCS[0]))))
@reader("passages, bytes", 2, file("a.tsv", lambda r: damaged(r, b"id\ttext\ttitle\n1\ta b\tc\n")))
def _(path: Path) -> None:
    read_passages(RetrievalOptions(passages=[str(path)]))


@reader("archives", 2, file("a.zip", lambda r: damaged(r, r.choice((ZIP, TAR)))))
def _(path: Path) -> None:
    if is_archive(path):
        with tempfile.TemporaryDirectory() as folder:
            unpack(path, Path(folder, "out"))


@reader("pickled weights", 1, file("a.bin", lambda r: damaged(r, PICKLE)))
def _(path: Path) -> None:
    read_pickled(path)


@reader("model folders", 2, file("config.json", lambda r: dumped(odd(r, MODEL))))
def _(path: Path) -> None:
    path.with_name("model.safetensors").touch()
    check_directory(str(path.parent), "model.base")


@reader("journals", 3, file("a.jsonl", lambda r: damaged(r, (dumped(ROW) + "\n").encode() * 2)))
def _(path: Path) -> None:
    read_journal(path)


@reader("caches of decisions", 0.1, file("a.sqlite", lambda r: damaged(r, DATABASE)))
def _(path: Path) -> None:
    DecisionCache(path).get([bytes([n]) * 32 for n in range(200)])


@reader("addresses", 5, lambda r, _: text(r, r.choice(ADDRESSES)))
def _(address: str) -> None:
    folder_of(address, "root")
    local_path(address, "root", "file")


@reader("names of verifiers", 5, lambda r, _: text(r, r.choice(SPECS)))
def _(spec: str) -> None:
    check_spec(spec)


SCORED = scored()
PROMPT = {
    "instruction": "Answer.",
    "demo_sep": "\n\n",
    "demo_prompt": "{INST}\n\nQuestion: {Q}\n\n{D}\nAnswer: {A}",
    "doc_prompt": "Document [{ID}](Title: {T}): {P}\n",
    "demos": [{"question": "Who?", "answer": "Hart [1].", "docs": DOCS}],
}
MODEL = read_json(BASE / "config.json")


def late(*_: Any) -> None:
    raise TimeoutError(f"more than {_PATIENCE} s")


def attack(name: str, first: int, inputs: int, folder: Path, report: Report) -> Counter[str]:
    """Give a reader so many inputs; what became of them."""
    _, make, read = READERS[name]
    happened: Counter[str] = Counter()
    began, kinds = time.monotonic(), set()
    each = _ROWS if name in ("rows, JSON", "rows, JSON lines") else 1
    for number in range(first, first + max(1, inputs // each)):
        rng = random.Random(f"{name} {number}")
        for path in folder.iterdir():
            path.unlink()
        given = make(rng, folder)
        signal.alarm(_PATIENCE)
        try:
            with redirect_stderr(io.StringIO()):
                read(given)
            happened["read"] += each
        except InputError as error:
            happened["refused"] += each
            if "\n" in str(error):
                kinds.add(f"{number}: more than one line: {str(error)[:200]!r}")
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            happened["findings"] += 1
            if not any(kind in known for known in kinds):
                kinds.add(f"{number}: {kind}: {str(error)[:200]!r}")
        finally:
            signal.alarm(0)
        if len(kinds) >= _ENOUGH:
            break
    seconds = time.monotonic() - began
    counts = f"{happened['read']:9,} {happened['refused']:9,} {happened['findings']:9,}"
    report(f"{name:22} {happened.total():9,} {counts} {seconds:7.0f} s")
    for line in sorted(kinds):
        report(f"  {line}")
    return happened


def main() -> int:
    parser = argument_parser(__doc__, "fuzz.txt")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all readers")
    parser.add_argument("--first", type=int, default=0, help="the first input's number")
    parser.add_argument("--only", choices=READERS, help="this reader")
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, late)
    report = Report(arguments.out, "pydantic", "pyarrow")
    report(f"{'reader':22} {'inputs':>9} {'read':>9} {'refused':>9} {'findings':>9}")
    whole = sum(weight for weight, *_ in READERS.values())
    happened: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in [arguments.only] if arguments.only else READERS:
            share = 1 if arguments.only else READERS[name][0] / whole
            count = round(arguments.inputs * share)
            happened += attack(name, arguments.first, count, Path(folder), report)
    report(f"{happened.total():,} inputs, {happened['findings']:,} findings")
    return 1 if happened["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
