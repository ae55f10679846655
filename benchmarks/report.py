"""How long does a report of many answers take to open, to filter, to search and to scroll?

    python benchmarks/report.py [--questions 3000] [--systems 7] [--page report.html]

A page of `citepipe report` in headless Chromium. Every question has five passages of a hundred
words drawn from 20,000, and a system's answer four sentences of them. What a choice takes is
counted from the click until its result is drawn; a search, from when it begins.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Report, argument_parser, verdict
from playwright.sync_api import sync_playwright

_ROUNDS = 5
_SECONDS, _MILLISECONDS = 2, 100
"""In which a page is to open, and a choice, a search or a frame to be drawn."""
_CHOICES = [
    ("verdict", "u", "a verdict"),
    ("verdict", "", "any verdict"),
    ("system", "", "all systems"),
    ("verdict", "failing", "failing, of all systems"),
    ("verdict", "", "any verdict, of all systems"),
    ("system", "s0", "a system"),
    ("beside", "s1", "two beside each other"),
    ("order", "citations", "by their difference"),
    ("search", "bado", "search for letters"),
    ("search", "no such words", "search in vain"),
    ("search", "", "no search"),
]
_OPENED = """new MutationObserver(() => {
  if (document.body?.dataset.ready) window.opened ??= performance.now();
}).observe(document, { subtree: true, attributes: true })"""
_CHOOSE = """([id, value]) => new Promise((done) => {
  const begin = performance.now();
  document.getElementById(id).value = value;
  changed();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin)));
})"""
_SCROLL = """() => new Promise((done) => {
  const frames = [];
  let last = performance.now();
  const step = (now) => {
    frames.push(now - last);
    last = now;
    scrollBy(0, 400);
    if (innerHeight + scrollY < document.body.scrollHeight - 1) requestAnimationFrame(step);
    else done(frames);
  };
  requestAnimationFrame(step);
})"""


def main() -> int:
    parser = argument_parser(__doc__, "report.txt")
    parser.add_argument("--questions", type=int, default=3000)
    parser.add_argument("--systems", type=int, default=7)
    parser.add_argument("--page", type=Path, help="the page, which is made if it is not there")
    arguments = parser.parse_args()
    out = Report(arguments.out, "playwright")
    with tempfile.TemporaryDirectory() as folder:
        page = arguments.page or Path(folder, "report.html")
        if not page.exists():
            _make(Path(folder), page.resolve(), arguments.questions, arguments.systems)
        opened, drawn, frames = _measure(page.resolve(), out)
    out(f"opened in {_of(opened, 1)} s; bar {_SECONDS} s: {verdict(max(opened) < _SECONDS)}")
    for name, own in drawn.items():
        out(f"{name:<28} {_of(own)} ms")
    slowest = max(statistics.median(own) for own in drawn.values())
    reached = slowest < _MILLISECONDS
    out(f"the slowest {slowest:.0f} ms; bar {_MILLISECONDS} ms: {verdict(reached)}")
    still = max(frames)
    smooth = still < _MILLISECONDS
    out(
        f"scrolled over a page of questions in {len(frames)} frames, the longest {still:.0f} ms; "
        f"bar {_MILLISECONDS} ms: {verdict(smooth)}"
    )
    return 0 if max(opened) < _SECONDS and reached and smooth else 1


def _make(folder: Path, page: Path, questions: int, systems: int) -> None:
    """A page of systems' answers."""
    rng = random.Random(0)
    parts = [consonant + vowel for consonant in "bcdfglmnprst" for vowel in "aeiou"]
    known = ["".join(rng.choices(parts, k=rng.randint(1, 4))) for _ in range(20_000)]

    def sentence() -> str:
        return " ".join(rng.choices(known, k=20)).capitalize()

    asked = []
    for n in range(questions):
        passages = [[sentence() for _ in range(5)] for _ in range(5)]
        docs = [{"title": known[n], "text": ". ".join(own) + "."} for own in passages]
        gold = rng.choices(known, k=3)
        asked.append({"id": str(n), "question": f"{sentence()}?", "docs": docs, "answers": gold})
    names = [f"s{n}" for n in range(systems)]
    for name in names:
        rows = []
        for question in asked:
            said = [rng.choice(rng.choice(question["docs"])["text"].split(". ")) for _ in range(4)]
            output = " ".join(f"{own.rstrip('.')} [{rng.randint(1, 5)}]." for own in said)
            rows.append({**question, "output": output})
        (folder / f"{name}.json").write_text(json.dumps(rows))
    answers = [f"{name}.json" for name in names]
    few = ["--resamples", "100"]
    for command in (
        ["score", *answers, "--dataset", "asqa", "--json", "scores.json", "--no-cache", *few],
        ["report", "scores.json", "--out", str(page), *few],
    ):
        path = f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        subprocess.run(
            [sys.executable, "-m", "citepipe.cli", *command],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path},
            check=True,
            stdout=subprocess.DEVNULL,
        )


def _measure(path: Path, out: Report) -> tuple[list[float], dict[str, list[float]], list[float]]:
    """Seconds until it is open, milliseconds per choice, and those of frames while one scrolls."""
    opened: list[float] = []
    drawn: dict[str, list[float]] = {}
    frames: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for round_ in range(_ROUNDS):
            page = browser.new_page()
            page.add_init_script(_OPENED)
            page.goto(path.as_uri())
            page.wait_for_selector("body[data-ready]")
            opened.append(page.evaluate("opened / 1000"))
            if round_ == 0:
                counted = page.evaluate("data.questions.flatMap((own) => own.answers).length")
                size = path.stat().st_size / 1e6
                out(f"Chromium {browser.version}; {counted} answers, {size:.1f} MB")
            for id_, value, name in _CHOICES:
                page.wait_for_timeout(200)
                drawn.setdefault(name, []).append(page.evaluate(_CHOOSE, [id_, value]))
            frames += page.evaluate(_SCROLL)
            page.close()
        browser.close()
    return opened, drawn, frames


def _of(own: list[float], digits: int = 0) -> str:
    return f"{statistics.median(own):.{digits}f} ({min(own):.{digits}f} to {max(own):.{digits}f})"


if __name__ == "__main__":
    raise SystemExit(main())
