"""Answers that decline: that say that the documents do not answer, or that who answers cannot.

A sentence declines if it begins so, perhaps behind an apology or a word on what it rests on, and
does not turn to an answer (`…, but it was built in 1820`). An answer does if a sentence of it
declines and every other one apologises, advises, or says what the documents are about instead.
"""

from __future__ import annotations

import re
from functools import lru_cache

from citepipe.text.statements import Answer

_DOCS = (
    r"(?:documents?|passages?|contexts?|sources?|texts?|articles?|excerpts?|snippets?|materials?"
    r"|search results?|references?|knowledge base|handbook|(?<=provided )information"
    r"|(?<=given )information|information(?= (?:provided|given|available|above|in|you)\b))"
)
# What stands in front of that word, and between it and its verb.
_THE = (
    r"(?:(?:the|these|those|this|your|my|all|any|both|none|neither|either|each|no|of|provided|given"
    r"|retrieved|available|supplied|cited|above|current|\d+|two|three|four|five) )*"
)
_DID = (
    r"(?:[ ,]+(?:provided|given|supplied|available|retrieved|above|here|that|which|you|i|we|to|me"
    r"|us|in|from|by|the|this|context|documents|for|question|have|has|had|been|do|does|did|is|are|was"
    r"|were|can|could|simply|itself|themselves|seem|appear|and|\d+))*"
)
_NOT = r"(?: not|n't)"
_ADVERBS = r"(?:(?:\w+ly|even|yet|seem to|appear to|be|been) )*"
_SAY = (
    r"(?:say|state|mention|specif|contain|includ|provid|giv|answer|tell|indicat|address|discuss"
    r"|describ|cover|list|name|reveal|disclos|identif|explain|offer|ha[sv]e? |talk|show|supply"
    r"|detail|clarif|confirm|found|find|determin|establish|infer|available|know|enough|sufficient"
    r"|relevant|about|clear|possible|refer)"
)
_THING = (
    r"(?:(?:any|enough|sufficient|the|relevant|specific|direct|further|clear) )*"
    r"(?:information|mention|answers?|details?|data|indication|references?)"
)
_LEAD = re.compile(
    r"(?:(?:(?:i am|i'm|we are|we're|so|very|truly) )*(?:sorry|afraid)|(?:i |we |my )?apolog\w+"
    r"|i regret|unfortunately|regrettably|sadly|based on|according to|from|given|after|as|having"
    r"|upon|while|although|though|since|because|in|among|however|therefore|thus|so|also"
    r"|(?:please )?note)\b.{0,120}?"
    r"(?:[,;:—] *(?:but |and )?|\bbut |\bthat |(?=\b(?:i|we|it) ))"
)
_DECLINE = [
    # The documents do not say it; none of them does; there is no information on it.
    rf"{_THE}{_DOCS}{_DID}{_NOT} {_ADVERBS}{_SAY}",
    rf"(?<=, )they(?: do| are){_NOT} {_ADVERBS}(?!ha[sv]){_SAY}",
    rf"(?:{_THE}{_DOCS}|(?<=, )they){_DID} (?:fails? to|lacks?|silent|insufficient|(?:contain"
    rf"|provide|give|offer|include|make|say|have|has)s? (?:no|nothing)\b)",
    rf"(?:none|neither|nothing|no)\b(?: in| of)*(?: them| {_THE}{_DOCS}){_DID} {_ADVERBS}{_SAY}",
    rf"there (?:is|are|was|were)(?: no|{_NOT}| insufficient) (?!mention\b(?!.*\b{_DOCS})){_THING}",
    r"(?<=, )there (?:is|was) no mention",
    rf"(?:no|not enough|insufficient|inadequate) {_THING}(?:\W*\Z| (?:is|was|about|on|in|to|of|"
    r"available|found|provided|given|regarding))",
    r"(?:the )?(?:answer|information) not (?:found|available|in|provided|given)\b",
    # I cannot say it.
    rf"(?:i|we) have no {_THING}|(?:i am|i'm|we are|we're) not (?:sure|certain|aware)\b",
    r"(?:i|we)(?: am| are|'m|'re)?(?: can ?not| can't| could not| couldn't|(?: was| were)? unable"
    rf" to| not able to| do{_NOT}| did{_NOT}) {_ADVERBS}(?:have {_THING}|have access|answer"
    r"|find|determin|provid|tell|know|confirm|locat|identif|give|say|verif|help (?:you )?with)",
    # It cannot be said.
    r"can ?not (?:be )?(?:answer|determin)",
    r"(?:it|this|that|(?:the|this|your|an) (?:answer|question|information|exact \w+)[^.,]{0,60}?)"
    rf"(?: can ?not| can't| could not|(?: is|'s| was){_NOT}) {_ADVERBS}(?:answer|{_SAY}|in )"
    rf"(?:.*\b{_DOCS}\b|\w*\W*\Z|.{{0,9}} (?:say|tell|determine|answer)\b)",
    rf"it is (?:unclear|unknown|impossible).*\b{_DOCS}\b",
    r"(?:unanswerable|unknown|not (?:answerable|mentioned|stated|specified|found|available|provided"
    rf"|given))(?:\W*\Z| (?:in|by|from) {_THE}{_DOCS})",
]
# Elsewhere: the documents, a negation, a verb of saying; or that one cannot.
_ELSEWHERE = (
    (
        r"dokument|\btexte?n?\b|quellen|passagen|unterlagen|kontext|abschnitt",
        r"\b(?:nicht|keine?|nichts)",
        r"nenn|erwähn|enthalt|enthält|sag|beantwort|g[ei]bt|geben|hervor|steht|find",
        r"\b(?:kann|weiß|konnte|finde)\b(?: ich| die frage)?.{0,60}\b(?:nicht|keine)\b",
    ),
    (
        r"document|texte|source|passage|contexte",
        r"\b(?:ne |n')",
        r"di[ts]|mention|précis|indiqu|conti|répond|fourni|parl|donn|permet",
        r"\bje ne (?:peux|sais|trouve|dispose|suis pas en mesure)",
    ),
    (
        r"document[oi]|texto|fuente|fonte|pasaje|passagen|contexto|trecho|testi\b|brani|contesto",
        r"\b(?:no|não|non|ningun\w+|nenhuma?|nessun\w*)\b",
        r"di[czg]|mencion|menzion|indic|conti|cont[ée]m|respond|rispond|especific|proporcion|inform",
        r"\b(?:no|não|non) (?:puedo|sé|encuentro|posso|sei|so\b|encontrei|trovo|hay información)",
    ),
    (
        r"документ|текст|источник|контекст|отрывк",
        r"\b(?:не|нет)",
        r"говор|сказан|упомин|указ|содерж|отве|информац|сообща",
        r"\bя не (?:знаю|могу|наш)|невозможно (?:ответ|опред)",
    ),
    (
        r"文[档件章]|[资資]料|上下文|材料|段落|搜索结果|信息",
        r"没有|沒有|[未不无無]",
        r"提|说|說|回答|包含|给出|找到|涉及|相关",
        r"[无無]法(?:回答|确定|得知|從|从)|不能(?:回答|确定)|不知道",
    ),
    (
        r"文[書章]|資料|ドキュメント|コンテキスト|検索結果|情報",
        r"ません|ない|なかった",
        r"記載|記述|言及|書かれ|述べ|含ま|見つか|示され|情報",
        r"(?:回答|答え|判断|特定)(?:は|を|に|が)?(?:でき|わかり|られ)?(?:ません|ない)|[わ分]かりません",
    ),
)
_DECLINES = re.compile("|".join(_DECLINE))
_OTHERS = [[re.compile(part) for part in (n, d, s, c)] for d, n, s, c in _ELSEWHERE]
# Without one of these nothing is declined; looked for first, because it is quick.
_DENIALS = (
    *(" not ", "n't", " no ", "cannot", " none", " neither", " nothing", "unable", "unknown"),
    *("unclear", "unanswer", "imposs", "insuff", "inadeq", " fail", " lack", "silent"),
    *(" nicht", " kein"),
    *(" ne ", " n'", " não ", " non ", "ningun", "nenhum", "nessun", "не", "нет", "没", "沒", "未"),
    *("无", "無", "不", "ない", "ませ"),
)
# Behind it an answer may follow after all.
_TURN = re.compile(
    r"\b(?:but|however|though|although|except|aber|mais|pero|mas|но)\b|但|ただし|しかし"
)
_SORRY = re.compile(
    r".{0,40}?\b(?:leid|désolé|siento|desculp\w+|dispiace|извин\w+),? (?:aber|ma\w+|pero|но)?"
)
# What a declining answer says besides.
_ROUND = re.compile(
    r"(?:(?:i am|i'm) )?(?:\w+ )?(?:sorry|afraid)\b|(?:i |we |my )?apolog|please|if you|feel free"
    r"|let me|you (?:may|might|can|could|should)|i (?:would |'d )?(?:recommend|suggest)|to answer"
    rf"|(?:more|further|additional) \w+|(?:{_THE}{_DOCS}|they|it){_DID} (?:(?:all|only|merely|just"
    rf"|mainly|mostly|instead) {_SAY}|discuss|describ|focus|cover|concern|deal|relate|talk"
    r"|are about)"
    r"|es tut mir leid|entschuldigung|désolé|lo siento|desculpe|mi dispiace|извините"
    r"|抱歉|对不起|申し訳"
)
_LONGEST = 500  # characters of a sentence that declines
_SPLIT = re.compile(r"(?<=[a-zà-ÿ)\]\"'”’][.!?]) +(?=[A-ZÀ-Þ])|(?<=[。！？])|\n")


@lru_cache(maxsize=4096)
def declines(sentence: str) -> bool:
    """Whether a sentence, without its citations, says that there is no answer."""
    sentence = _begun(sentence)
    small, at = f" {sentence.lower()} ", 0
    if len(sentence) > _LONGEST or not any(denial in small for denial in _DENIALS):
        return False
    while lead := _LEAD.match(sentence, at):
        at = lead.end()
    found = _DECLINES.match(sentence, at) or _DECLINES.match(sentence)
    if found:
        return not _TURN.search(sentence, found.end())
    small = _SORRY.sub("", small)
    return not _TURN.search(small) and any(
        no.search(small) and (cannot.search(small) or (docs.search(small) and say.search(small)))
        for no, docs, say, cannot in _OTHERS
    )


def _begun(sentence: str) -> str:
    """A sentence with a small first letter; other capitals stay: a song begins `I Don't Know`."""
    sentence = " ".join(sentence.replace("’", "'").split()).lstrip("\"'“‘*-• ")
    return sentence[:1].lower() + re.sub(r"\bI\b", "i", sentence[1:])


def refuses(answer: Answer, listing: bool) -> bool:
    """Whether an answer as a whole declines, in sentences though it should be a list; an empty one
    does not."""
    parts = _SPLIT.split(answer.bare) if listing else [own.claim for own in answer.statements]
    sentences = [part for part in parts if part.strip()]
    declining = [declines(sentence) for sentence in sentences]
    return any(declining) and all(
        own or _ROUND.match(_begun(sentence))
        for own, sentence in zip(declining, sentences, strict=True)
    )
