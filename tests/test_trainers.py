"""Rewards for other trainers: TRL itself on a tiny model, verl's call, and HTTP."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from citepipe import trainers
from citepipe.rewards import Rewarder
from citepipe.trainers import (
    CitationReward,
    TokenAdvantages,
    compute_score,
    rewards_app,
    verl_advantages,
)
from tests.generate.loopback_server import ChatServer, chat

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


def test_advantages_for_verl_are_of_the_tokens_that_earned_them():
    """Of the rewards of a question, 1 and -1 and 1 more, the mean is 1/3 and the deviation
    sqrt(8)/3; the other question's answers, whose rewards are alike, are worth nothing."""
    rewards = torch.tensor([[0, 1, 0, 0], [0, 5, 0, 0], [0, -1, 1, 0], [5, 0, 0, 0]]).float()
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    advantages, returns = verl_advantages(
        token_level_rewards=rewards, response_mask=mask, index=["a", "b", "a", "b"], config=None
    )
    good, bad = (1 - 1 / 3) / (8**0.5 / 3), (-1 - 1 / 3) / (8**0.5 / 3)
    expected = [[good, good, 0, 0], [0] * 4, [bad + good, bad + good, good, 0], [0] * 4]
    assert advantages.tolist() == [pytest.approx(own, abs=1e-6) for own in expected]
    assert returns.tolist() == [[1, 1, 0, 0], [5, 5, 0, 0], [0, 0, 1, 0], [5, 0, 0, 0]]


@pytest.mark.filterwarnings("ignore")
def test_verl_itself_gets_rewards_and_advantages_of_tokens(tiny_base: Path):
    """By verl's own code, with the hooks of the documentation; in the place of its server answers
    that are given."""
    pytest.importorskip("verl", reason="verl is not installed")
    import asyncio

    import numpy as np
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer
    from verl import DataProto
    from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
    from verl.trainer.ppo.ray_trainer import compute_advantage
    from verl.trainer.ppo.reward import get_custom_reward_fn

    kwargs: dict[str, Any] = {"citation_recall": 1.0, "citation_precision": 0.5}
    custom = {"path": trainers.__file__, "name": "compute_score", "reward_kwargs": kwargs}
    score = get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": custom}}))
    asked = {"data_source": "own", "ground_truth": "", "extra_info": ROW}
    scores = [score(solution_str=text, **asked) for text in (RIGHT, WRONG)]
    assert [own["score"] for own in scores] == pytest.approx([1.5, -1.5])

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    answers = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in (RIGHT, WRONG)]
    docs = Path(__file__).parent.parent.joinpath("docs/trainers.md").read_text()
    example: dict[str, Any] = {"__name__": "citation_hooks"}
    exec(re.search(r"```python\n(# citation_hooks.*?)```", docs, re.S)[1], example)
    loop = object.__new__(example["CitationLoop"])
    loop.tokenizer = tokenizer

    async def answered(self: Any, given: list[int], **row: Any) -> Any:
        known = {"prompt_ids": [1], "response_ids": given, "response_mask": [1] * len(given)}
        return example["AgentLoopOutput"](**known, metrics={}, extra_fields={})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SingleTurnAgentLoop, "run", answered)
        made = [asyncio.run(loop.run(own, extra_info=ROW)).as_dict() for own in answers]
    # On the stop behind the citation, a token with it, which the end of sequence follows.
    for own, value, ids in zip(made, (1.2, -1.2), answers, strict=True):
        assert own["rm_scores"].tolist() == pytest.approx([0] * (len(ids) - 2) + [value, 0])

    pad = torch.nn.utils.rnn.pad_sequence
    tensors = {
        key: pad([own[name] for own in made], batch_first=True)
        for key, name in (("token_level_rewards", "rm_scores"), ("response_mask",) * 2)
    }
    mask = tensors["response_mask"]
    tensors |= {"prompts": torch.ones(2, 1), "attention_mask": torch.cat([mask[:, :1], mask], 1)}
    parts = {name: np.array([own[name] for own in scores]) for name in scores[0]}
    parts["uid"] = np.array(["q", "q"], dtype=object)
    data = DataProto.from_dict(tensors=tensors, non_tensors=parts)
    found = compute_advantage(data, "citations").batch["advantages"]
    expected = [
        torch.tensor([sign] * (len(ids) - 1) + [0])
        for sign, ids in zip((1, -1), answers, strict=True)
    ]
    assert torch.equal(found, pad(expected, batch_first=True).float())
    keys = OmegaConf.create({"gdpo_reward_keys": ["citation_recall", "citation_precision"]})
    by_part = compute_advantage(data, "gdpo", config=keys).batch["advantages"]
    assert (by_part[0] > 0).equal(mask[0] > 0)
    assert (by_part[1] < 0).equal(mask[1] > 0)


def test_http_gives_rewards_by_character_and_by_token():
    testclient = pytest.importorskip("fastapi.testclient", reason="fastapi is not installed")
    app = rewards_app(CitationReward(**RECALL), most_bytes=99_999)
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
    wrong = ((b"x" * 100_000, 413), (b"[" * 99_999, 422), (b'{"rows": [{"output": 3}]}', 422))
    for body, status in ((b"[]", 422), *wrong):
        assert client.post("/rewards", content=body).status_code == status
    answer = client.post("/rewards", json={"rows": [{"output": "x", "docs": ["y"]}]})
    assert answer.json()["detail"].startswith("row 0, field question: missing")
    assert client.post("/rewards", json={"rows": []}, headers={"host": "evil"}).status_code == 400


def test_a_judge_behind_a_server_rewards_over_http(tmp_path: Path):
    testclient = pytest.importorskip("fastapi.testclient", reason="fastapi is not installed")
    with ChatServer() as server:
        server.answer = lambda _: chat("Yes")
        spec = f"server:{server.url}#org/judge?retries=0"
        app = rewards_app(CitationReward(spec, cache=tmp_path / "c.sqlite", **RECALL), 10_000)
        client = testclient.TestClient(app, base_url="http://127.0.0.1:8077")
        known, other = ({"rows": [ROW | {"output": text}]} for text in (RIGHT, WRONG))
        for _ in range(2):
            assert client.post("/rewards", json=known).json()["rewards"][0]["total"] == 1
        assert len(server.requests) == 1
        server.die()
        answer = client.post("/rewards", json=other)
        assert (answer.status_code, "gave no answer" in answer.json()["detail"]) == (503, True)
        assert client.post("/rewards", json=known).status_code == 200
