"""Best of n."""

from __future__ import annotations

from citepipe.data.example import Example
from citepipe.options.sample import BestOfNOptions
from citepipe.sample.best_of_n import best_of_n
from tests.sample.test_segment_search import Speaker, Taste


def test_candidates_come_best_first_and_all_are_kept() -> None:
    examples = [Example(str(i), "asqa", "?", ()) for i in range(4)]
    options = BestOfNOptions(n=5, max_new_tokens=3)
    found = best_of_n(examples, [(i,) for i in range(4)], Speaker(), Taste(), options, seed=0)
    for candidates in found:
        assert len(candidates) == 5
        rewards = [candidate["reward"] for candidate in candidates]
        assert rewards == sorted(rewards, reverse=True)
        assert rewards == [
            round(sum(Taste().reward([examples[0]], [c["text"]])[0].values()), 6)
            for c in candidates
        ]
