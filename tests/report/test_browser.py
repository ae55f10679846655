"""The report in a real browser: what a person clicks, and what hostile answers come to."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from citepipe.cli import main

from .test_page import ANSWERS, score

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")

HOSTILE = {
    "markup": "<script>document.title='no'</script> It's <img src=x onerror=document.title=1> [1].",
    "direction": "\u202eAnna was born in Oslo [1].\u202c שלום [2].",
    "control": "Anna\u0000 \u001b[1m was born in Oslo [1]. 😀 Next [9].",
    "long": f"Anna was born {'very ' * 200_000}far [1]. {'y' * 1_000_000} [2].",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # In a container Chromium's own sandbox cannot be made.
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page and waits for its answers; whatever it complains about fails the test."""
    context, complaints = browser.new_context(), []
    context.set_default_timeout(10_000)

    def open_page(path: Path | str, address: str = "") -> Any:
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        where = path if isinstance(path, str) else path.as_uri()
        page.on("request", lambda r: r.url.startswith(where) or complaints.append(r.url))
        page.goto(where + address)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    out = folder / "report.html"
    scores = str(score(folder, ANSWERS))
    # What a system that learns from rewards leaves.
    model = folder / "results/models/short/seed0"
    model.mkdir(parents=True)
    (model / "citepipe.json").write_text('{"step": 5}')
    texts = {0: "No 😀.", 5: "In 1820 [1]."}
    standing = {0: [[5, 5, {"correctness": -0.2}]]}
    standing[5] = [[10, 11, {"citation_recall": 0.2, "citation_precision": 0.1}]]
    rows = [
        {"step": n, "question": "When?", "answer": text, "reward": n, "standing": standing[n]}
        for n, text in texts.items()
    ]
    (model / "samples.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    files = [scores, str(folder / "results")]
    assert main(["report", *files, "--against", "long", "--out", str(out)]) == 0
    return out


def questions(page: Any) -> list[str]:
    """The questions that are listed, by their ids."""
    return [text.split()[-1] for text in page.locator("article .id").all_inner_texts()]


def test_filters_search_order_and_systems_beside_each_other(opened: Any, report: Path) -> None:
    page = opened(report)
    assert page.locator("#system").input_value() == "short"
    assert questions(page) == ["mill", "hart"]
    page.select_option("#system", "long")
    assert page.locator("#count").inner_text() == "2 answers to 2 questions"
    page.select_option("#verdict", label="out of range")
    assert questions(page) == ["hart"]
    assert page.locator("article .why").all_inner_texts() == [
        "said before",
        "cites nothing",
        "there is no [9]",
    ]
    page.select_option("#verdict", label="any")
    page.fill("#search", "RIVER lune")
    expect(page.locator("#count")).to_have_text("2 answers to 2 questions")
    page.fill("#search", "four mills")
    expect(page.locator("#count")).to_have_text("1 answers to 1 questions")
    assert questions(page) == ["mill"]
    page.fill("#search", "")
    # Typing is waited for before the list is drawn again.
    expect(page.locator("#count")).to_have_text("2 answers to 2 questions")
    page.select_option("#beside", "short")
    page.select_option("#order", "correct")
    # 2/3 of the gold answers both times; then all and none.
    assert questions(page) == ["hart", "mill"]
    assert page.locator("article").first.locator("h4").all_inner_texts() == [
        "long recall 50 · precision 100 · correct 100",
        "short correct 0",
    ]
    again = opened(report, "#" + page.url.partition("#")[2])
    assert questions(again) == ["hart", "mill"]


def test_from_a_count_to_a_sentence_its_passage_and_a_verdict(opened: Any, report: Path) -> None:
    page = opened(report)
    row = page.locator("#fault-table tbody tr", has_text="long")
    row.get_by_role("link", name="1 (17%)").nth(1).click()
    assert questions(page) == ["mill"]
    page.set_viewport_size({"width": 1280, "height": 400})
    sentence = page.get_by_role("button", name="John Hart owned four mills")
    sentence.scroll_into_view_if_needed()
    place = sentence.bounding_box()["y"]
    sentence.click()
    panel = page.locator("#panel")
    # The page is narrower beside it, and the sentence stays where it was.
    assert abs(sentence.bounding_box()["y"] - place) < 50
    expect(panel).to_be_focused()
    assert "lexical: not supported by what it cites" in panel.inner_text()
    assert "In no cited passage: four" in panel.inner_text()
    assert panel.locator(".decisive").inner_text() == "John Hart owned three mills."
    marks = ["John", "Hart", "John", "Hart", "owned", "mills"]
    assert panel.locator(".passage").first.locator("mark").all_inner_texts() == marks
    panel.get_by_label("comment").fill("but one")
    panel.get_by_role("button", name="disagree").click()
    with page.expect_download() as saved:
        page.click("#save")
    [line] = Path(saved.value.path()).read_text().splitlines()
    label = json.loads(line)
    assert [label[name] for name in ("id", "system", "seed", "statement")] == ["mill", "long", 0, 1]
    assert (label["label"], label["comment"]) == ("disagree", "but one")
    assert (label["verifier"], label["verdicts"]) == ("lexical", {"lexical": "not supported"})
    # A link leads to the sentence, and the browser still knows the verdict on it.
    link = panel.get_by_role("link", name="link to this sentence").get_attribute("href")
    page.keyboard.press("Escape")
    assert panel.is_hidden()
    expect(page.get_by_role("button", name="John Hart owned four mills")).to_be_focused()
    other = opened(report, link)
    assert other.locator("#system").input_value() == "long"
    assert other.locator("article .open").inner_text() == "John Hart owned four mills [2]."
    pressed = other.locator("#panel [aria-pressed=true]")
    assert pressed.inner_text() == "disagree"


def test_rewards_are_told_where_they_stand(opened: Any, report: Path) -> None:
    page = opened(report)
    lines = page.locator("#sample-list li").all_text_contents()
    first, kept = "0.00 step 0 No 😀.end (−0.20 correctness)", "5.00 step 5, kept In 1820 [1"
    assert lines == [first, f"{kept}] (+0.20 citation recall, +0.10 citation precision)."]
    place = page.locator("#sample-list .reward").last
    assert place.evaluate("own => own.firstChild.data") == "]"
    tip = place.locator(".tip")
    assert tip.bounding_box()["width"] < 2
    place.focus()
    assert tip.bounding_box()["width"] > 100


def test_a_served_page_has_all_answers_and_keeps_verdicts(opened: Any, tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    notes = tmp_path / "notes.txt"
    notes.write_text("Mill\n\nThe mill was built in 1820.")
    files = ["view", str(score(tmp_path, ANSWERS)), "--labels", str(labels), "--port", "0"]
    files += ["--docs", str(notes)]
    command = [sys.executable, "-m", "citepipe.cli", *files]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[0]
            page = opened(url)
            assert page.locator("#count").inner_text() == "2 answers to 2 questions"
            page.locator("article .said").first.click()
            with page.expect_response("**/labels"):
                page.get_by_role("button", name="disagree").click()
            [kept] = map(json.loads, labels.read_text().splitlines())
            assert (kept["system"], kept["label"]) == ("short", "disagree")
            page = opened(url)
            assert page.locator("#labelled").inner_text().startswith("1 of 1 ")
            page.get_by_label("question").fill("When was the <b>mill built?")
            with page.context.expect_page() as asked:
                page.get_by_role("button", name="ask").click()
            said = asked.value.locator("article .said")
            expect(said).to_have_text("The mill was built in 1820 [1].")
            assert asked.value.locator("#scores").is_hidden()
            assert asked.value.locator("h3").inner_text() == "When was the <b>mill built?"
            assert "ok" in said.get_attribute("class")
        finally:
            server.terminate()


def test_hostile_answers_are_text(opened: Any, tmp_path: Path) -> None:
    rows = [
        {"id": name, "question": "</script><b>Who?", "docs": ["<i>x</i>"], "output": text}
        for name, text in HOSTILE.items()
    ]
    answers, scores, out = (tmp_path / name for name in ("<b>.json", "scores.json", "out.html"))
    answers.write_text(json.dumps(rows))
    assert main(["score", str(answers), "--no-cache", "--json", str(scores)]) == 0
    assert main(["report", f"<b>&={scores}", "--out", str(out)]) == 0
    assert out.stat().st_size < 100_000
    page = opened(out)
    assert page.title() == "citepipe: report"
    assert page.locator("#scores tbody th").first.inner_text() == "<b>&"
    page.select_option("#order", "given")
    texts = [text.replace("\xa0", " ") for text in page.locator("article .text").all_inner_texts()]
    assert texts[0].startswith("<script>document.title='no'</script> It's <img src=x onerror=")
    assert texts[1].startswith("⟨U+202E⟩Anna was born in Oslo [1].")
    assert texts[2].startswith("Anna␀ ␛[1m was born in Oslo [1].")
    assert "😀 Next [9]." in texts[2]
    assert len(texts[3]) < 5000
    page.locator("article .said").last.click()
    page.get_by_role("button", name="more characters").click()
    assert len(page.locator("#panel bdi").inner_text()) > 1_000_000
    page.locator("article .said").first.click()
    assert "<i>x</i>" in page.locator("#panel .passage").first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(scheme: str, opened: Any, report: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not there")
    page = opened(report)
    page.emulate_media(color_scheme=scheme)
    page.locator("article .said").first.click()
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    page.evaluate(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 40
    faults = [
        (own["id"], own["nodes"][0]["html"])
        for own in found["violations"]
        if own["impact"] in ("serious", "critical")
    ]
    assert faults == []
