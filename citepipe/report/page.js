"use strict";
// The answers of a report (see page.py, `collect`): filters, pages, the panel of a sentence, the
// counts of faults, the charts, and a person's verdicts. Whatever a model or a document says
// becomes a text node.

const PER_PAGE = 50;
const AT_ONCE = 6; // questions that are drawn at once; the page's others follow
const LONGEST = 1500; // characters of a text that are shown before one asks for more
const $ = (id) => document.getElementById(id);

/** A new element: its attributes (`on…` are listeners), and children (strings become text). */
function el(tag, attributes = {}, ...children) {
  const made = tag === "svg" || el.svg.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child != null));
  return made;
}
el.svg = new Set(["g", "line", "path", "circle", "text", "title"]);

const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

/** The characters of a text from one place to another, counted as Python does: by code points. */
const between = (text, from, to) =>
  PAIRS.test(text) ? [...text].slice(from, to).join("") : text.slice(from, to);
const PAIRS = /[\ud800-\udfff]/;

/** A text as people can see it: control characters as pictures, and what turns the direction of
 * all that follows as its name. */
function visible(text) {
  if (!UNSEEN.test(text)) return text;
  return text
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g,
      (c) => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

let data; // what page.py collected
let labels = {}; // a person's verdicts, by the link of a sentence
let shown = []; // the questions that the filters leave, in their order
let page = 0;
let open = null; // the sentence in the panel: {answer, k}

/** Whether `citepipe view` gives the answers, and keeps a person's verdicts. */
const SERVED = !$("data").hasChildNodes();

/** The compressed answers that are in the page, as a stream. */
function inside() {
  const text = $("data").textContent;
  let bytes;
  if (Uint8Array.fromBase64) bytes = Uint8Array.fromBase64(text);
  else {
    const binary = atob(text);
    bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  }
  $("data").remove();
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}

async function unpack() {
  data = JSON.parse(await (SERVED ? await fetch("data") : inside()).text());
  const passages = []; // in full where they come first
  for (const question of data.questions) {
    question.docs = question.docs.map((doc) => (Array.isArray(doc) ? passages[passages.push(doc) - 1] : passages[doc]));
    for (const answer of question.answers) answer.question = question;
  }
}

/** Where an answer's statements and citations are in its text, and what decides on them. */
function placesOf(answer) {
  const [spans, cited, cites, decisive] = JSON.parse(answer.places);
  return { spans, cited, cites, decisive };
}

// -- what is chosen: the controls, kept in the address

const CHOICES = ["system", "beside", "dataset", "seed", "verifier", "verdict", "order"];

function options(id, list) {
  $(id).replaceChildren(...list.map(([value, name]) => el("option", { value }, name)));
}

function prepare() {
  const names = (list) => list.map((name) => [name, name]);
  const seeds = data.seeds.map(String);
  options("system", [["", "all"], ...names(data.systems)]);
  options("beside", [["", "nothing"], ...names(data.systems)]);
  options("dataset", [["", "all"], ...names(data.datasets)]);
  options("seed", [["", "all"], ...names(seeds)]);
  options("verifier", names(data.verifiers));
  options("verdict", [["", "any"], ["failing", "failing"],
    ...Object.entries(data.modes).map(([letter, [name]]) => [letter, name]),
    ["again", "said before"], ["missing", "gold answer omitted"], ["empty", "empty answer"], ["mine", "for or with your verdict"]]);
  options("order", [["failing", "failing first"], ["given", "as given"],
    ["citations", "largest difference in citations"], ["correct", "… in correctness"]]);
  options("sampled", data.samples.map((own, n) => [n, own.run]));
  options("fault-dataset", [["", "all"], ...names(data.datasets)]);
  options("fault-verifier", names(data.verifiers));
  $("seed").parentElement.hidden = seeds.length < 2;
  $("verifier").parentElement.hidden = $("fault-verifier").parentElement.hidden = data.verifiers.length < 2;
  $("key").replaceChildren(...Object.values(data.modes).map(([name, meaning, kind]) =>
    el("span", { class: `mark ${kind}`, title: meaning }, name)));
  reset({});
}

function reset(chosen) {
  for (const id of CHOICES) $(id).value = chosen[id] ?? "";
  $("system").value = chosen.system ?? data.best;
  for (const id of ["verifier", "order"]) if (!$(id).value) $(id).selectedIndex = 0;
  $("search").value = chosen.search ?? "";
  $("differ").checked = chosen.differ === "1";
}

function address(extra = {}) {
  const parts = new URLSearchParams();
  for (const id of CHOICES) if ($(id).value && $(id).selectedIndex) parts.set(id, $(id).value);
  if ($("system").value === "") parts.set("system", "");
  if ($("search").value) parts.set("search", $("search").value);
  if ($("differ").checked) parts.set("differ", "1");
  for (const [name, value] of Object.entries(extra)) parts.set(name, value);
  return `#${parts}`;
}

/** What follows an address: the filters, and one sentence (`at`), which is opened. */
function follow() {
  const hash = location.hash.slice(1);
  if (!hash.includes("=")) return;
  const chosen = Object.fromEntries(new URLSearchParams(hash));
  reset(chosen);
  select();
  page = 0;
  if (!chosen.at) {
    render();
    return $("answers").scrollIntoView();
  }
  const [dataset, id, system, seed, k] = chosen.at.split("/").map(decodeURIComponent);
  const question = data.questions.find((one) => one.id === id && data.datasets[one.dataset] === dataset);
  const answer = question?.answers.find((own) =>
    data.systems[own.system] === system && String(own.seed) === seed);
  if (!shown.includes(question) || !question.cells.includes(answer)) {
    reset({ system, dataset, seed, verifier: chosen.verifier });
    select();
  }
  page = Math.floor(shown.indexOf(question) / PER_PAGE);
  render(PER_PAGE);
  if (!answer) return say(`${chosen.at} is not in this report`);
  show(answer, Number(k));
  $(`q${question.n}`).scrollIntoView({ block: "center" });
}

const say = (line) => { $("count").textContent = line; };

function link(answer, k) {
  const { question } = answer;
  return [data.datasets[question.dataset], question.id, data.systems[answer.system], answer.seed, k]
    .map(encodeURIComponent).join("/");
}

// -- which questions are listed, and in which order

let judging = 0; // the number of the chosen verifier
const verdicts = (answer) => answer.by[judging];
const failing = (letters) => failing.known[letters] ??= letters.replace(/[^upeoc]/g, "").length;
failing.known = {};
const f1 = ([, , , recall, precision]) =>
  recall == null || recall + precision === 0 ? 0 : 2 * recall * precision / (recall + precision);

function matches(answer, verdict) {
  const own = verdicts(answer);
  if (!own) return false;
  if (verdict === "") return true;
  if (verdict === "failing") return failing(own[0]) > 0;
  if (verdict === "again") return answer.again.length > 0;
  if (verdict === "missing") return own[2].includes("0");
  if (verdict === "empty") return own[0] === "";
  if (verdict === "mine") return [...own[0]].some((_, k) => labels[link(answer, k)]);
  return own[0].includes(verdict);
}

/** The texts in which one searches, in lower case: of a question, and of an answer. */
const haystack = (question) => question.lower ??=
  [question.id, question.text, ...question.gold, ...question.docs.flat()].join("\n").toLowerCase();
const lower = (answer) => answer.lower ??= (answer.text ?? "").toLowerCase();

/** Gets the texts from the nth question on ready while there is nothing else to do. */
function prepareSearch(n) {
  window.requestIdleCallback?.((idle) => {
    for (; n < data.questions.length && idle.timeRemaining() > 1; n++) {
      haystack(data.questions[n]);
      data.questions[n].answers.forEach(lower);
    }
    if (n < data.questions.length) prepareSearch(n);
  });
}

function select() {
  const value = Object.fromEntries(CHOICES.map((id) => [id, $(id).value]));
  const systemOf = (name) => (name === "" ? -1 : data.systems.indexOf(name));
  const [first, second, dataset] =
    [systemOf(value.system), systemOf(value.beside), data.datasets.indexOf(value.dataset)];
  const sought = $("search").value.trim().toLowerCase();
  const mean = (list) => list.reduce((sum, x) => sum + x, 0) / (list.length || 1);
  judging = $("verifier").selectedIndex;
  let answers = 0;
  shown = [];
  for (const question of data.questions) {
    if (dataset >= 0 && question.dataset !== dataset) continue;
    const all = value.seed === "" ? question.answers
      : question.answers.filter((own) => own.seed === Number(value.seed));
    const ours = first < 0 ? all : all.filter((own) => own.system === first);
    const theirs = second < 0 ? [] : all.filter((own) => own.system === second && own.system !== first);
    const found = ours.filter((own) => matches(own, value.verdict));
    if (!found.length) continue;
    if (sought && !haystack(question).includes(sought)
      && !found.some((own) => lower(own).includes(sought))) continue;
    const figures = (list, of) => mean(list.map((own) => of(verdicts(own) ?? [])));
    const gaps = theirs.length ? ["citations", "correct"].map((kind) => {
      const of = kind === "citations" ? (v) => (v.length ? f1(v) : 0) : (v) => v[5] ?? 0;
      return figures(ours, of) - figures(theirs, of);
    }) : [0, 0];
    if ($("differ").checked && theirs.length && !gaps.some(Boolean)
      && ours[0]?.text === theirs[0]?.text) continue;
    question.cells = first < 0 ? found : [...found, ...theirs];
    question.gaps = gaps;
    const worst = Math.max(...found.map((own) => {
      const [letters] = verdicts(own);
      return letters ? failing(letters) / letters.length + letters.length / 1e6 : 0;
    }));
    question.rank = { failing: worst, given: 0, citations: Math.abs(gaps[0]), correct: Math.abs(gaps[1]) }[value.order];
    answers += found.length;
    shown.push(question);
  }
  shown.sort((a, b) => b.rank - a.rank);
  const needs = ["citations", "correct"].includes(value.order) && second < 0;
  say(`${answers} answers to ${shown.length} questions`
    + (needs ? "; choose a system beside to order by differences" : ""));
}

// -- how they are drawn

function render(atOnce = AT_ONCE) {
  const pages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const part = shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
  const cards = (from, to) => part.slice(from, to).map((question) => card(question, question.cells));
  $("list").replaceChildren(...cards(0, atOnce));
  clearTimeout(render.waiting);
  render.waiting = setTimeout(() => $("list").append(...cards(atOnce)));
  $("page").textContent = `${page + 1} of ${pages}`;
  $("previous").disabled = page === 0;
  $("next").disabled = page === pages - 1;
}

function card(question, cells) {
  const made = el("article", { id: `q${question.n}`, tabindex: -1 },
    el("div", { class: "top" },
      el("h3", { dir: "auto" }, long(question.text)),
      el("span", { class: "id" }, `${data.datasets[question.dataset]} ${visible(question.id)}`),
      cells.length < question.answers.length
        ? el("button", { type: "button", onclick: () => {
          made.replaceWith(card(question, question.answers));
          $(`q${question.n}`).focus();
        } }, `all ${question.answers.length} answers`) : null),
    el("div", { class: "cells" }, cells.map((answer) => cell(question, answer))));
  return made;
}

function cell(question, answer) {
  const own = verdicts(answer);
  const figures = own && [["recall", own[3]], ["precision", own[4]], ["correct", own[5]]]
    .filter(([, x]) => x != null).map(([name, x]) => `${name} ${Math.round(x)}`).join(" · ");
  const omitted = own ? question.gold.filter((_, n) => own[2][n] === "0") : [];
  const seeds = $("seed").options.length > 2 ? ` seed ${answer.seed}` : "";
  return el("section", { class: "cell" },
    el("h4", {}, data.systems[answer.system] + seeds, " ", el("span", {}, figures ?? "not scored")),
    el("p", { class: "text", dir: "auto" }, sentences(answer, own)),
    omitted.length ? el("p", { class: "omitted" }, "omits ",
      omitted.flatMap((gold, n) => [n ? " · " : "", el("b", { dir: "auto" }, long(gold, 300))])) : null);
}

/** An answer's text with its statements, and the citations in them, marked by verdict. */
function sentences(answer, own) {
  const part = (from, to) => between(answer.text, from, to);
  const places = placesOf(answer);
  const parts = [];
  let end = 0;
  places.spans.forEach(([from, to], k) => {
    if (from > end) parts.push(long(part(end, from)));
    const [, meaning, kind] = data.modes[own?.[0][k]] ?? ["", "not scored", ""];
    const inside = [];
    let at = from;
    places.cites.forEach(([begin, stop, statement], n) => {
      if (statement !== k || begin < at) return;
      inside.push(begun(part(at, begin)));
      const [said, colour] = data.citations[own?.[1][n]] ?? ["", ""];
      inside.push(el("i", { class: `cite ${colour}`, title: said }, part(begin, stop)));
      at = stop;
    });
    inside.push(begun(part(at, to)));
    const isOpen = open && open.answer === answer && open.k === k;
    parts.push(el("span", {
      class: `said ${kind}${isOpen ? " open" : ""}`, role: "button", tabindex: 0, title: meaning,
      onclick: () => show(answer, k),
      onkeydown: (event) => { if (event.key === "Enter") show(answer, k); },
    }, inside));
    const reason = why(answer, places, k, own);
    if (reason) parts.push(" ", el("span", { class: `why ${kind}` }, reason));
    end = to;
  });
  const rest = part(end);
  if (rest) parts.push(long(rest));
  return parts.length ? parts : [el("span", { class: "omitted" }, "an empty answer")];
}

/** What is said behind a sentence in a few words. */
function why(answer, { cited, decisive }, k, own) {
  const n = answer.question.docs.length;
  const numbers = (list) => [...new Set(list)].map((one) => `[${one}]`).join("");
  const said = {
    u: () => `not in ${numbers(cited[k])}`,
    e: () => `not in ${numbers(cited[k]) || "what it cites"} but in [${decisive[k]?.[0]}]`,
    o: () => `there is no ${numbers(cited[k].filter((c) => c < 1 || c > n))}`,
    c: () => "cites nothing",
    n: () => "a citation too many",
  }[own?.[0][k]]?.();
  return [said, answer.again.includes(k) ? "said before" : ""].filter(Boolean).join(", ");
}

/** The beginning of a text that is very long: the panel has all of it. */
const begun = (text) => visible(text.slice(0, LONGEST)) + (text.length > LONGEST ? " … " : "");

/** A text, cut if it is very long, with a button that shows the rest. */
function long(text, most = LONGEST) {
  if (text.length <= most) return visible(text);
  const more = el("button", { type: "button", onclick: () => more.replaceWith(visible(text.slice(most))) }, `… ${text.length - most} more characters`);
  return [visible(text.slice(0, most)), more];
}

// -- the panel: one sentence, what it cites, and what a person says of it

const STOP = new Set(("a an and are as at be been but by did do does for from had has have he her his in is it its "
  + "of on or she that the their them there they this to was were which who with would").split(" "));
/** The words of a text but the commonest, by what they are compared as. */
const words = (text) => new Map((text.match(/[\p{L}\p{N}]+/gu) ?? [])
  .map((word) => [word.toLowerCase().replace(/(?<=..)s$/, ""), word]).filter(([stem]) => !STOP.has(stem)));

function show(answer, k) {
  const { question } = answer;
  const places = placesOf(answer);
  const [from, to] = places.spans[k] ?? [0, 0];
  const decisive = places.decisive[k];
  const said = between(answer.text, from, to);
  // An item of a list is judged with the question in front of it.
  const stated = data.datasets[question.dataset] === "qampari" ? `${question.text} ${said}` : said;
  const sought = words(stated.replace(/\[\d+\]?/g, ""));
  const cited = [...new Set(places.cited[k] ?? [])];
  const passage = (n) => {
    const [title, text] = question.docs[n - 1];
    return [el("h3", { dir: "auto" }, `[${n}] `, long(title)), el("div", { class: "passage", dir: "auto" },
      marked(text, sought, decisive?.[0] === n ? decisive : [0, 0, 0]))];
  };
  const isThere = (n) => n >= 1 && n <= question.docs.length;
  // What supports it elsewhere is shown like what it cites.
  const there = [...new Set([...cited.filter(isThere), ...(decisive ? [decisive[0]] : [])])];
  const others = question.docs.map((_, n) => n + 1).filter((n) => !there.includes(n));
  const read = words(there.flatMap((n) => question.docs[n - 1]).join(" "));
  const isFailing = failing(verdicts(answer)?.[0][k] ?? "") > 0;
  const absent = isFailing && there.length ? [...sought].filter(([stem]) => !read.has(stem)).map(([, word]) => word) : [];
  open = { answer, k };
  const key = link(answer, k);
  const about = (verifier, n) => {
    const own = answer.by[n];
    const [, meaning, kind] = data.modes[own?.[0][k]] ?? ["", "not scored", ""];
    const each = places.cites.flatMap(([begin, stop, statement], c) => statement !== k ? [] : [el("li", {},
      `${between(answer.text, begin, stop)} ${data.citations[own?.[1][c]]?.[0] ?? ""}`)]);
    return [el("p", { class: `verdicts ${kind}` }, el("b", {}, `${verifier}: `), meaning), el("ul", {}, each)];
  };
  const asked = labels[key]?.verifier ?? $("verifier").value;
  const letter = answer.by[data.verifiers.indexOf(asked)]?.[0][k] ?? "c";
  const choice = (name) => el("button", { type: "button", "data-label": name, onclick: () => label(name) }, name);
  $("panel").replaceChildren(el("div", {},
    el("button", { class: "close", type: "button", onclick: close }, "close"),
    el("h2", {}, `${data.systems[answer.system]}, seed ${answer.seed}`),
    el("p", { class: "hint", dir: "auto" }, long(question.text)),
    el("p", { dir: "auto" }, el("bdi", {}, long(said))),
    data.verifiers.flatMap(about),
    absent.length ? el("p", { class: "hint" }, "In no cited passage: ", el("b", {}, absent.slice(0, 40).map(visible).join(", "))) : null,
    there.flatMap(passage),
    others.length ? el("details", { open: there.length === 0 },
      el("summary", {}, there.length ? "the other documents" : "the documents"), others.flatMap(passage)) : null,
    question.gold.length ? el("details", {}, el("summary", {}, "gold answers"),
      el("ul", {}, question.gold.map((gold, n) => el("li", { dir: "auto" },
        answer.by[$("verifier").selectedIndex]?.[2][n] === "1" ? "✓ " : "omitted: ", long(gold))))) : null,
    el("h3", {}, `By ${asked} what it cites ${"sn".includes(letter) ? "supports" : "does not support"} it. Is that right?`),
    el("div", {}, ["agree", "disagree", "unsure"].flatMap((name) => [choice(name), " "])),
    el("textarea", { placeholder: "comment", "aria-label": "comment",
      oninput: (event) => label(labels[key]?.label ?? "unsure", event.target.value) }, labels[key]?.comment ?? ""),
    el("p", { class: "hint" }, el("a", { href: `#${new URLSearchParams({ at: key, verifier: $("verifier").value })}` }, "link to this sentence"))));
  history.replaceState(null, "", address({ at: key }));
  for (const one of document.querySelectorAll(".said.open")) one.classList.remove("open");
  beside(true);
  press();
  $("panel").scrollTop = 0;
  $("panel").focus();
}

/** Shows the panel or hides it. The page grows narrower or wider by it: the question stays where it is. */
function beside(isShown) {
  const { question } = open.answer;
  const place = () => $(`q${question.n}`)?.getBoundingClientRect().top ?? 0;
  const before = place();
  $("panel").hidden = !isShown;
  if (isShown) $(`q${question.n}`)?.replaceWith(card(question, question.cells.includes(open.answer) ? question.cells : question.answers));
  scrollBy(0, place() - before);
}

function close() {
  beside(false);
  const was = document.querySelector(".said.open");
  open = null;
  was?.classList.remove("open");
  was?.focus({ preventScroll: true });
  history.replaceState(null, "", address());
}

/** A passage with the words marked that the sentence has too, and the sentence that decides. */
function marked(text, sought, [, from, to]) {
  return [[0, from, false], [from, to, true], [to, Infinity, false]].map(([begin, end, isDecisive]) => {
    const part = between(text, begin, end);
    if (!part) return null;
    const parts = [];
    let done = 0;
    for (const found of part.slice(0, LONGEST).matchAll(/[\p{L}\p{N}]+/gu)) {
      if (![...words(found[0]).keys()].some((stem) => sought.has(stem))) continue;
      parts.push(visible(part.slice(done, found.index)), el("mark", {}, found[0]));
      done = found.index + found[0].length;
    }
    return el("span", { class: isDecisive ? "decisive" : null }, parts, long(part.slice(done)));
  });
}

// -- a person's verdicts: kept by the browser, saved as JSON lines

const KEPT = () => `citepipe ${data.digest}`;

/** Keeps verdicts: those of the named sentences at the server, or all in the browser. */
function remember(...keys) {
  if (SERVED) keys.forEach(send);
  else try { localStorage.setItem(KEPT(), JSON.stringify(labels)); } catch { /* only this page has them */ }
  const n = Object.keys(labels).length;
  const said = Object.values(labels).filter((own) => own.label).length;
  $("labelled").textContent = n ? `${said} of ${n} sentences have your verdict` : "none yet";
  $("save").disabled = n === 0;
}

/** Sends a verdict when a person has stopped writing for a moment. */
function send(key) {
  clearTimeout(send.waiting[key]);
  send.waiting[key] = setTimeout(async () => {
    const body = JSON.stringify(labels[key]);
    const answer = await fetch("labels", { method: "POST", headers: { "Content-Type": "application/json" }, body })
      .catch((error) => ({ statusText: error.message }));
    if (!answer.ok) $("labelled").textContent = `not kept: ${answer.status ?? ""} ${answer.statusText}`;
  }, 300);
}
send.waiting = {};

/** Adds verdicts, a JSON object per line; returns their keys. */
function add(lines) {
  return lines.split("\n").filter((line) => line.trim()).map((line) => {
    const own = JSON.parse(line);
    const key = [own.dataset, own.id, own.system, own.seed, own.statement].map(encodeURIComponent).join("/");
    labels[key] = own;
    return key;
  });
}

function label(name, comment) {
  const { answer, k } = open;
  const { question } = answer;
  const { spans, cited } = placesOf(answer);
  const [from, to] = spans[k];
  const key = link(answer, k);
  labels[key] = {
    dataset: data.datasets[question.dataset], id: question.id, question: question.text,
    system: data.systems[answer.system], seed: answer.seed, statement: k,
    text: between(answer.text, from, to), cited: cited[k],
    verifier: labels[key]?.verifier ?? $("verifier").value,
    verdicts: Object.fromEntries(data.verifiers.map((name, n) => [name, data.modes[answer.by[n]?.[0][k]]?.[0] ?? null])),
    label: name, comment: comment ?? labels[key]?.comment ?? "",
  };
  remember(key);
  press();
}

function press() {
  const own = labels[link(open.answer, open.k)];
  for (const button of $("panel").querySelectorAll("[data-label]")) {
    button.setAttribute("aria-pressed", String(button.dataset.label === own?.label));
  }
}

function save() {
  const lines = Object.values(labels).map((own) => `${JSON.stringify(own)}\n`).join("");
  const url = URL.createObjectURL(new Blob([lines], { type: "application/jsonl" }));
  el("a", { href: url, download: "labels.jsonl" }).click();
  URL.revokeObjectURL(url);
}

async function load(event) {
  const [file] = event.target.files;
  try {
    remember(...add(await file.text()));
  } catch (error) {
    $("labelled").textContent = `${file.name}: expected a JSON object per line: ${error.message}`;
  }
}

// -- faults and figures

function faults() {
  const dataset = data.datasets.indexOf($("fault-dataset").value);
  const verifier = $("fault-verifier").selectedIndex;
  const table = data.systems.map(() => ({}));
  for (const [v, system, d, name, n] of data.counts) {
    if (v === verifier && (dataset < 0 || d === dataset)) table[system][name] = (table[system][name] ?? 0) + n;
  }
  const letters = Object.keys(data.modes).filter((letter) => data.counts.some(([v, , , name]) => v === verifier && name === letter));
  const heads = ["system", "statements", "", ...letters.map((one) =>
    el("span", { class: `mark ${data.modes[one][2]}`, title: data.modes[one][1] }, data.modes[one][0])), "said before", "gold omitted", "empty"];
  const to = (system, verdict, n, of) => n ? el("a", { title: `${n} of ${of}`, href: `#${new URLSearchParams({
    system, verdict, dataset: $("fault-dataset").value, verifier: $("fault-verifier").value })}` },
  `${n} (${Math.round(100 * n / of)}%)`) : "0";
  $("fault-table").replaceChildren(
    el("thead", {}, el("tr", {}, heads.map((head) => el(head ? "th" : "td", head ? { scope: "col" } : {}, head)))),
    el("tbody", {}, table.map((own, n) => {
      const system = data.systems[n];
      const all = letters.reduce((sum, one) => sum + (own[one] ?? 0), 0);
      const bar = letters.map((one) => el("i", { class: `${data.modes[one][2]} ${"no".includes(one) ? "weak" : "strong"}`,
        title: data.modes[one][1], style: `width:${100 * (own[one] ?? 0) / (all || 1)}%` }));
      return el("tr", { class: system === data.best ? "best" : "" }, el("th", { scope: "row" }, system), el("td", {}, String(all)),
        el("td", {}, el("div", { class: "bar" }, bar)),
        letters.map((one) => el("td", {}, to(system, one, own[one] ?? 0, all))),
        el("td", {}, to(system, "again", own.again ?? 0, all)),
        el("td", {}, to(system, "missing", own.missing ?? 0, own.gold ?? 0)),
        el("td", {}, to(system, "empty", own.empty ?? 0, own.answers ?? 0)));
    })));
}

/** The samples of the next questions of the chosen system; from the first one on if `anew`. */
function samples(anew) {
  const list = $("sample-list");
  const own = data.samples[$("sampled").selectedIndex];
  if (anew) list.replaceChildren();
  const begin = list.children.length;
  list.append(...own.questions.slice(begin, begin + PER_PAGE).map((question, n) => el("details", { open: begin + n === 0 },
    el("summary", {}, el("bdi", {}, long(question.text)), " ", el("span", { class: "id" }, visible(question.id))),
    el("ol", { class: "samples" }, question.samples.map(([text, reward, standing, said, isChosen]) => el("li", {},
      el("b", {}, reward.toFixed(2)), " ", el("span", { class: "id" }, said), " ",
      el("span", { class: isChosen ? "chosen" : null, dir: "auto" }, rewarded(text, standing))))))));
  $("sampled-count").textContent = own.about;
  $("more-samples").hidden = list.children.length >= own.questions.length;
}

/** A text with the rewards at the places where they stand; what stands on no character is at its end. */
function rewarded(text, standing) {
  const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);
  let end = 0;
  const parts = standing.flatMap(([from, to, own]) => {
    const before = long(between(text, end, from));
    end = to;
    const sum = Object.values(own).reduce((a, b) => a + b, 0);
    const named = Object.entries(own).map(([name, x]) => `${signed(x)} ${name.replace("_", " ")}`).join(", ");
    return [before, el("span", { class: `reward mark ${sum < 0 ? "bad" : "ok"}`, tabindex: 0 },
      visible(between(text, from, to)) || "end", el("span", { class: "tip" }, ` (${named})`))].flat();
  });
  return [...parts, ...[long(between(text, end))].flat()];
}

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#5aa9dc", "#8c4fd0", "#7f7f7f"];

/** Citation F1 against correctness in the mean, and recall against precision by dataset: systems as
 * numbered dots with their intervals. */
function charts() {
  const [verifier] = data.verifiers;
  const names = { citation_f1: "citation F1", correctness: "correctness", citation_rec: "citation recall", citation_prec: "citation precision" };
  const places = [...new Set(data.points.flatMap((own) => Object.keys(own.values)))]
    .filter((name) => name.endsWith(` ${verifier}`)).map((name) => name.slice(0, -verifier.length - 1));
  const drawn = [[places[0], "correctness", "citation_f1"], ...places.map((place) => [place, "citation_prec", "citation_rec"])]
    .map(([place, x, y]) => chart(`${place}: ${names[y]} (up) and ${names[x]}`, data.points.map((own, n) => {
      const values = own.values[`${place} ${verifier}`] ?? {};
      return [n, values[x], values[y]];
    }).filter(([, a, b]) => a && b)));
  $("charts").replaceChildren(...drawn.filter(Boolean));
  $("figure-key").replaceChildren(...data.systems.flatMap((system, n) => [el("b", { style: `color:${COLOURS[n % COLOURS.length]}` },
    `${n + 1} `), `${system} \u00a0 `]), `by ${verifier}; lines are intervals.`);
}

/** A chart of dots, `[number, [x, low, high], [y, low, high]]`, on axes as long as needed. */
function chart(title, dots) {
  if (!dots.length) return null;
  const axis = (which, begin, length) => {
    const ends = dots.flatMap((dot) => dot[which].slice(1));
    const [low, high] = [Math.max(0, 10 * Math.floor(Math.min(...ends) / 10 - .2)), Math.min(100, 10 * Math.ceil(Math.max(...ends) / 10 + .2))];
    const ticks = Array.from({ length: (high - low) / 10 + 1 }, (_, n) => low + 10 * n);
    return [ticks, (value) => begin + length * (value - low) / (high - low)];
  };
  const [[across, at], [upward, up]] = [axis(1, 34, 290), axis(2, 250, -235)];
  const ends = (ticks) => [ticks[0], ticks.at(-1)];
  const [[left, right], [low, high]] = [ends(across), ends(upward)];
  return el("figure", {}, el("svg", { viewBox: "0 0 340 272", role: "img", "aria-label": title },
    across.flatMap((value) => [el("line", { class: "axis", x1: at(value), x2: at(value), y1: up(low), y2: up(high) }),
      el("text", { class: "soft", x: at(value), y: 265, "text-anchor": "middle" }, String(value))]),
    upward.flatMap((value) => [el("line", { class: "axis", x1: at(left), x2: at(right), y1: up(value), y2: up(value) }),
      el("text", { class: "soft", x: 28, y: up(value) + 4, "text-anchor": "end" }, String(value))]),
    dots.map(([n, [x, x1, x2], [y, y1, y2]]) => el("g", { stroke: COLOURS[n % COLOURS.length], "stroke-width": 1.5 },
      el("title", {}, `${data.systems[n]}: ${y} up, ${x} across`),
      el("line", { x1: at(x1), x2: at(x2), y1: up(y), y2: up(y) }),
      el("line", { x1: at(x), x2: at(x), y1: up(y1), y2: up(y2) }),
      el("circle", { cx: at(x), cy: up(y), r: 7, fill: COLOURS[n % COLOURS.length] }),
      el("text", { class: "number", x: at(x), y: up(y) + 4, "text-anchor": "middle" }, String(n + 1))))),
  el("figcaption", {}, title));
}

// -- what a person does

function changed() {
  page = 0;
  select();
  render();
  history.replaceState(null, "", address());
}

function turn(by) {
  page += by;
  render();
  $("answers").scrollIntoView();
}

function step(by) {
  const cards = [...$("list").children];
  const now = cards.indexOf(document.activeElement?.closest?.("article") ?? (open && $(`q${open.answer.question.n}`)));
  const next = cards[Math.min(Math.max(now + by, 0), cards.length - 1)];
  next?.focus();
  next?.scrollIntoView({ block: "start" });
}

const KEYS = {
  "/": () => $("search").focus(), j: () => step(1), k: () => step(-1), n: () => turn(1), p: () => turn(-1),
  a: () => open && label("agree"), d: () => open && label("disagree"), u: () => open && label("unsure"),
};

function listen() {
  for (const id of [...CHOICES, "differ"]) $(id).addEventListener("change", changed);
  let waiting;
  $("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(changed, 120); });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["fault-dataset", "fault-verifier"]) $(id).addEventListener("change", faults);
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("sampled").addEventListener("change", () => samples(true));
  $("more-samples").addEventListener("click", () => samples(false));
  $("save").addEventListener("click", save);
  $("load").addEventListener("change", load);
  $("theme").addEventListener("click", () => {
    const root = document.documentElement.style;
    const isDark = root.colorScheme ? root.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.colorScheme = isDark ? "light" : "dark";
  });
  addEventListener("hashchange", follow);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && open) return close();
    if (event.target.closest?.("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
  });
}

async function begin() {
  say("unpacking the answers …");
  await unpack();
  prepare();
  if (SERVED) add(await (await fetch("labels")).text());
  else try { labels = JSON.parse(localStorage.getItem(KEPT()) ?? "{}"); } catch { labels = {}; }
  remember();
  select();
  render();
  faults();
  charts();
  $("samples").hidden = document.querySelector("[href='#samples']").hidden = !data.samples.length;
  if (data.samples.length) samples(true);
  // Of one answer there is nothing to compare.
  const isOne = data.questions.length === 1 && data.questions[0].answers.length === 1;
  for (const about of document.querySelectorAll("header nav, #finding, #scores, #faults, #figures, #filters, #pages")) about.hidden = isOne;
  listen();
  follow();
  document.body.dataset.ready = "1";
  prepareSearch(0);
}

begin().catch((error) => say(`The answers cannot be shown: ${error.message}`));
