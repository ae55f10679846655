"""Best of n."""

from __future__ import annotations

from citepipe.data.example import Example
from citepipe.options import BestOfNOptions
from citepipe.sample.best_of_n import best_of_n
from tests.sample.test_segment_search import Place, Speaker, Taste, speak, taste


def test_all_samples_are_kept_the_best_first() -> None:
    """Sample i is what the draws of `dataset/id/i` say; of equals the one drawn first is first."""
    examples = [Example(str(i), "asqa", "?", ()) for i in range(4)]
    options = BestOfNOptions(n=5, max_new_tokens=3)
    found = best_of_n(examples, [(i,) for i in range(4)], Speaker(), Taste(), options, seed=7)
    for number, (example, record) in enumerate(zip(examples, found, strict=True)):
        expected = []
        for i in range(5):
            key = f"asqa/{example.id}/{i}"
            said = speak(Place((number,), (), key, 3, False, options, 7))  # type: ignore[arg-type]
            rewards = taste(example, said.text)
            expected.append(
                {
                    "text": said.text.strip(),
                    "reward": sum(rewards.values()),
                    "rewards": rewards,
                    "tokens": len(said.ids),
                    "finish": said.finish,
                }
            )
        expected.sort(key=lambda candidate: -candidate["reward"])
        tokens = sum(candidate["tokens"] for candidate in expected)
        head = {"id": example.id, "dataset": "asqa"}
        assert record == head | {"candidates": expected, "sampled_tokens": tokens}
