"""Rewards for other trainers: TRL itself on a tiny model, verl's call, and HTTP."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from citepipe.rewards import Rewarder
from citepipe.trainers import CitationReward, TokenAdvantages, compute_score, rewards_app

ROW = {"question": "Where was Anna Berg born?", "docs": ["Anna Berg was born in Zürich."]}
RIGHT, WRONG = "Anna Berg was born in Zürich [1].", "Anna Berg was born in Rome [1]."
RECALL = {"citation_recall": 1.0, "citation_precision": 0.0, "correctness": 0.0}


def test_an_answer_has_the_sum_of_its_rewards():
    reward = CitationReward(citation_precision=0.5, name="cites")
    docs, question = [ROW["docs"]] * 3, [ROW["question"]] * 3
    chat = [[{"role": "assistant", "content": text}] for text in (RIGHT, WRONG, "It is so.")]
    given = {"docs": docs, "question": question, "trainer_state": None}
    # A statement is worth 0.2 and a citation 0.5.
    assert reward(["?"] * 3, [RIGHT, WRONG, "It is so."], **given) == pytest.approx(
        [0.7, -0.7, -0.2]
    )
    assert reward(["?"] * 3, chat, **given) == pytest.approx([0.7, -0.7, -0.2])
    assert reward.__name__ == "cites"


@pytest.mark.filterwarnings("ignore")
def test_trl_learns_from_advantages_of_tokens(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trl = pytest.importorskip("trl", reason="trl is not installed")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    answers = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in (RIGHT, WRONG)]

    def answered(prompts: list[str], trainer: Any) -> dict[str, Any]:
        given = [tokenizer(prompt)["input_ids"] for prompt in prompts]
        return {"prompt_ids": given, "completion_ids": answers, "logprobs": None}

    seen = []
    judged: list[str] = []
    spans = Rewarder.spans

    def noted(self: Rewarder, examples: Any, texts: Any) -> Any:
        judged.extend(texts)
        return spans(self, examples, texts)

    monkeypatch.setattr(Rewarder, "spans", noted)

    class Trainer(TokenAdvantages, trl.GRPOTrainer):  # type: ignore[name-defined, misc]
        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            seen.append(inputs["advantages"])
            return super()._compute_loss(model, inputs)

    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    before = model.lm_head.weight.clone()
    options = {"per_device_train_batch_size": 2, "num_generations": 2, "max_steps": 1}
    options |= {"use_cpu": True, "report_to": "none", "learning_rate": 0.1, "save_strategy": "no"}
    trainer = Trainer(
        model,
        reward_funcs=CitationReward(**RECALL),
        args=trl.GRPOConfig(str(tmp_path), **options),
        train_dataset=Dataset.from_list([{"prompt": "Where?", **ROW}] * 2),
        processing_class=tokenizer,
        rollout_func=answered,
    )
    trainer.train()
    # One is rewarded with 1 on its stop, the other with -1: every token up to there is worth as
    # many standard deviations, and the end of sequence nothing.
    [advantages] = seen
    length = max(map(len, answers))
    expected = [
        [sign] * (len(own) - 1) + [0] * (length - len(own) + 1)
        for sign, own in zip((1, -1), answers, strict=True)
    ]
    assert advantages.tolist() == expected
    # Each answer is read once, for the reward that is logged and for the advantages.
    assert judged == [RIGHT, WRONG]
    assert not torch.equal(model.lm_head.weight, before)
    [logged] = [own for own in trainer.state.log_history if "reward" in own]
    assert (logged["rewards/citation_reward/mean"], logged["reward"]) == (0, 0)


def test_verl_gets_a_score_and_its_components():
    given = {"row": json.dumps(ROW), "split": "train"}
    found = compute_score("hotpot", RIGHT, "", given, citation_precision=0.5)
    parts = {"citation_recall": 0.2, "citation_precision": 0.5, "correctness": 0}
    assert found == pytest.approx({"score": 0.7} | parts)


def test_http_gives_rewards_by_character_and_by_token():
    testclient = pytest.importorskip("fastapi.testclient", reason="fastapi is not installed")
    app = rewards_app(CitationReward(**RECALL), most_bytes=10_000)
    client = testclient.TestClient(app, base_url="http://127.0.0.1:8077")
    rows = [
        ROW | {"output": RIGHT, "offsets": [[0, 28], [28, 33], [33, 33]]},
        ROW | {"output": WRONG},
    ]
    right, wrong = client.post("/rewards", json={"rows": rows}).json()["rewards"]
    assert (right["total"], right["tokens"]) == (1, [0, 1, 0])
    assert right["rewards"] == [{"component": "citation_recall", "char": 32, "value": 1}]
    assert (wrong["total"], wrong["components"]["citation_recall"]) == (-1, -1)
    assert "tokens" not in wrong
    for body, status in ((b"x" * 10_001, 413), (b"[]", 422), (b'{"rows": [{"output": 3}]}', 422)):
        assert client.post("/rewards", content=body).status_code == status
    answer = client.post("/rewards", json={"rows": [{"output": "x", "docs": ["y"]}]})
    assert answer.json()["detail"].startswith("row 0, field question: missing")
    assert client.post("/rewards", json={"rows": []}, headers={"host": "evil"}).status_code == 400
