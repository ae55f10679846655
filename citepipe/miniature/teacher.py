"""A teacher that answers correctly but cites as a careless reader does.

It errs by situation and not by coin: a coin's faults vanish under greedy decoding, where the
student copies the teacher's most frequent choice, which is then the right one. In the situations
below the wrong citation is the frequent one, as with a real teacher.

| dataset | situation | fault |
|---|---|---|
| ASQA | claim of document 4 or 5 | first other document of that title .74, both .18, none .08 |
| ELI5 | document 4 or 5, or a city | first other document of the person .58, all .20, none .22 |
| QAMPARI | every item | first document (second if the first is right) .86, none .14 |

With the default probabilities, citation recall and precision come close to those of ChatGPT on
ALCE (73.6/72.5 on ASQA, 51.1/50.0 on ELI5, 20.5/20.9 on QAMPARI).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from citepipe.data.example import Example
from citepipe.miniature.questions import Claim, Drawn
from citepipe.options import FaultOptions

# Shares of the faults: one wrong document, the right one among others, no citation at all.
_FAULTS = {"asqa": (0.74, 0.18, 0.08), "eli5": (0.58, 0.20, 0.22), "qampari": (0.86, 0.0, 0.14)}


def teach(drawn: Sequence[Drawn], options: FaultOptions, seed: int) -> list[Example]:
    """The examples of some questions, with the teacher's cited answer as their output.

    Args:
        drawn: questions of the world (ASQA, ELI5 or QAMPARI).
        options: how often the teacher errs.
        seed: of its faults.
    """
    rng = random.Random(f"{seed} teacher")
    return [
        replace(d.example, output=d.answer([cite(d, claim, options, rng) for claim in d.claims]))
        for d in drawn
    ]


def cite(drawn: Drawn, claim: Claim, options: FaultOptions, rng: random.Random) -> list[int]:
    """The documents (from 0) that the teacher cites for a claim."""
    dataset = drawn.example.dataset
    chance = getattr(options, dataset) if misleading(dataset, claim) else options.elsewhere
    if rng.random() >= chance:
        return [claim.document]
    wrong = _mistaken(drawn, claim)
    fault = rng.choices(("other", "more", "none"), _FAULTS[dataset])[0]
    if fault == "none":
        return []
    if fault == "other":
        return wrong[:1]
    return sorted({claim.document, *(wrong if dataset == "eli5" else wrong[:1])})


def misleading(dataset: str, claim: Claim) -> bool:
    """Whether a claim is in the situation that misleads the teacher."""
    if dataset == "qampari":
        return True
    late = claim.document >= 3
    return late or (dataset == "eli5" and claim.relation in ("lived", "studied"))


def _mistaken(drawn: Drawn, claim: Claim) -> list[int]:
    """The documents that the teacher may take for the claim's, most tempting first."""
    others = [d for d in range(len(drawn.example.docs)) if d != claim.document]
    if drawn.example.dataset == "qampari":
        return others[:1]
    return [d for d in others if drawn.example.docs[d].title == drawn.entity]
