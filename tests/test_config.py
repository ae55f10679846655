"""The configuration: what it accepts, and the one line it says otherwise."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from citepipe.config import Config, load_config, with_types
from citepipe.errors import InputError
from citepipe.inputs import localise
from citepipe.options import ServerOptions, resolved

ROOT = Path(__file__).parents[1]


def configuration(**changes: Any) -> dict[str, Any]:
    """A small complete configuration with some sections replaced."""
    return {
        "data": {"train": ["train.json"], "dev": ["dev.json"], "test": {"asqa": "test.json"}},
        "model": {"base": "base"},
        "verifiers": {"train": "lexical", "report": {"lexical": "lexical"}},
        "systems": {
            "dist": {"train": "sft", "data": "teacher"},
            "rs": {
                "train": "sft",
                "start": "dist",
                "data": {"sample": "best_of_n", "from": "dist"},
            },
            "rl": {"train": "ppo", "start": "rs", "reward": "holistic"},
        },
    } | changes


def systems(**changes: Any) -> dict[str, Any]:
    return configuration(systems=configuration()["systems"] | changes)


def test_a_path_that_no_system_can_have_is_named() -> None:
    raw = configuration(model={"base": "a/" + "b" * 256})
    with pytest.raises(InputError, match=r"^model\.base: expected a path, an address or"):
        localise(load_config(raw))


def mistake(raw: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        load_config(raw)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_schema_file_is_the_one_that_the_models_generate() -> None:
    path = ROOT / "workflow" / "schemas" / "config.schema.json"
    assert json.loads(path.read_text()) == Config.model_json_schema(), "run `make schema`"


def test_every_key_of_the_schema_is_described() -> None:
    schema = Config.model_json_schema()
    for name, section in [("", schema), *schema["$defs"].items()]:
        for key, field in section.get("properties", {}).items():
            # A section is described by the docstring of its class.
            refers = "$ref" in json.dumps(field)
            assert field.get("description") or refers or "const" in field, f"{name}.{key}"


RS = {"train": "sft", "start": "dist", "data": {"sample": "best_of_n", "from": "dist"}}
COPY = {"extract": "first_sentence"}
SEARCHED = systems(searched={"model_of": "rl", "decode": "segment_search"})
OF_A_MODEL = "expected a system with a model, got 'people', which has answers only"
OF_ITS_OWN = "expected a system with a model of its own, got 'again', which has that of another"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"rl": {"lerning_rate": 1}}, "rl.lerning_rate: no such key, did you mean learning_rate?"),
        ({"sytems": {}}, "sytems: no such key, did you mean systems?"),
        ({"scratch": {}}, "scratch: no longer trains .*; write a pretrained one as model.base"),
        ({"miniature": {"base": {"clip_norm": 2}}}, "miniature.base.clip_norm: no longer set"),
        ({"best_of_n": {"n": "many"}}, "best_of_n.n: expected a valid integer.*, got 'many'"),
        (
            {"best_of_n": {"min_reward": "best"}},
            "best_of_n.min_reward: expected greedy, a number or",
        ),
        ({"shards": 0}, "shards: expected "),
        ({"server": {"url": "localhost"}}, "server.url: expected an http or https URL"),
        (
            {"verifiers": {"train": "lexical", "report": {"lexical": "lexical"}, "watch": "true"}},
            "verifiers: watch: expected one of lexical, got 'true'",
        ),
        ({"seeds": [True]}, "seeds.0: expected "),
        ({"seeds": [2**32]}, "seeds.0: expected "),
        ({"seeds": [1, 1]}, "seeds: expected distinct numbers, got [1, 1]"),
        ({"results": "/tmp/out"}, "results: expected a folder below"),
        ({"results": "../out"}, "results: expected a folder below"),
        ({"results": "out{}"}, "results: expected a folder below"),
        ({"results": "pyproject.toml"}, "results: expected a folder below"),
        ({"results": "out/"}, "results: expected a folder below"),
        ({"results": "."}, "results: expected a folder below"),
        (
            {"model": {"base": "base", "dty\npe": 1}},
            "model.dty\\npe: no such key, did you mean dtype?",
        ),
        ({"systems": {"a": {"train": {"sft": 1}}}}, "systems.a: expected "),
        ({"\ud800": 1}, "the configuration: expected "),
    ],
)
def test_a_bad_value_is_named_with_its_key_and_what_was_expected(
    changes: dict[str, Any], line: str
) -> None:
    assert re.match(re.escape(line).replace(r"\.\*", ".*"), mistake(configuration(**changes)))


@pytest.mark.parametrize(
    ("system", "line"),
    [
        (RS | {"data": {"sample": "all", "from": "dist"}}, "data.sample: expected 'best_of_n' or"),
        (RS | {"options": {"epoch": 1}}, "options.epoch: no such key, did you mean epochs?"),
        ({"train": "dpo", "start": "rs", "data": {"samples_of": "dist"}},
         "data.samples_of: expected a system with `data: {sample: ...}`, got 'dist'"),
        ({"train": "grpo", "start": "rs", "reward": "holistic", "options": {"lam": 0.5}},
         "options.lam: no such key"),
        (RS | {"start": "nobody"},
         "start: expected the name of a system (dist, rs, rl, people, copy, again, odd), got"),
        (RS | {"start": "people"}, f"start: {OF_A_MODEL}"),
        (RS | {"start": "again"}, f"start: {OF_ITS_OWN}"),
        ({"model_of": "again"}, f"model_of: {OF_ITS_OWN}"),
        ({"model_of": "dist", "decode": "beam"}, "decode: expected 'greedy' or"),
        ({"outputs": {"asqa": "people.json"}, "decode": "greedy"}, "decode: no such key"),
    ],
)  # fmt: skip
def test_a_bad_system_is_named_with_its_key(system: dict[str, Any], line: str) -> None:
    known = {"people": {"outputs": {"asqa": "people.json"}}, "copy": COPY}
    raw = systems(**known, again={"model_of": "rl"}, odd=system)
    assert mistake(raw).startswith(f"systems.odd.{line}")


def test_episodes_are_whole_rollouts() -> None:
    rl = {"episodes": 130, "prompts_per_step": 8, "samples_per_prompt": 4}
    expected = "prompts_per_step times samples_per_prompt, 32, got 130"
    assert mistake(configuration(rl=rl)).endswith(expected)
    load_config(configuration(rl=rl | {"episodes": 128}))


def test_what_must_hold_between_sections() -> None:
    assert mistake(systems(odd={"train": "trpo"})) == (
        "systems.odd: expected one with `train: sft`, `dpo`, `ppo`, `grpo` or `rloo`, with "
        "`adapter`, `model_of`, `outputs` or `extract`, got {'train': 'trpo'}"
    )
    circle = "systems.rs: expected no circle, got rs -> rl -> rs"
    assert mistake(systems(rs=RS | {"start": "rl"})) == circle
    missing = configuration()
    del missing["verifiers"]
    assert mistake(missing) == "verifiers: required, but missing"
    only_scored = configuration(systems={"people": {"outputs": {"asqa": "people.json"}}})
    del only_scored["model"], only_scored["data"]
    assert load_config(only_scored).model is None
    assert mistake(only_scored | {"systems": {"copy": COPY}, "data": None}) == (
        "data: required, because systems.copy needs it"
    )
    copied = configuration(systems={"copy": COPY}, seeds=[3, 4])
    del copied["model"]
    assert load_config(copied).seeds_of("copy") == [3]
    assert mistake(only_scored | {"systems": configuration()["systems"], "data": None}) == (
        "data: required, because systems.dist needs it"
    )


def test_search_needs_a_reward_for_citations() -> None:
    cited = {"citation_recall": 0.0, "citation_precision": 0.1}
    assert load_config(SEARCHED | {"reward": cited}).systems["rl"].decode == "greedy"  # type: ignore[union-attr]
    nothing = cited | {"citation_precision": 0.0}
    load_config(configuration(reward=nothing))
    assert mistake(SEARCHED | {"reward": nothing}) == (
        "reward: expected citation_recall or citation_precision above 0, because systems.searched "
        "is decoded by their search"
    )


def test_where_a_server_is_and_how_it_is_queried_decides_no_result() -> None:
    here = ServerOptions(url="http://127.0.0.1:1/v1", concurrency=3, timeout=5, retries=1)
    there = ServerOptions(url="http://127.0.0.1:2/v1", api_key_variable="KEY")
    assert resolved(here) == resolved(there) == {"model": None}
    assert resolved(load_config(configuration(server={})).server or here) == {"model": None}


def test_what_is_given_on_the_command_line_has_the_types_of_yaml() -> None:
    raw = {"model": {"base": "7", "dtype": "null"}, "rl": {"a": ["1", "x: y", "[0"]}, "seeds": "1"}
    words = {"model": {"dtype": "null"}, "rl": {"a": ["1", "x: y", "[0"]}, "seeds": "0.5"}
    typed = {"model": {"base": "7", "dtype": None}, "rl": {"a": [1, "x: y", "[0"]}, "seeds": 0.5}
    assert with_types(raw, words) == typed


def test_results_stand_for_themselves_in_paths() -> None:
    config = load_config(configuration(results="out", model={"base": "{results}/base"}))
    assert config.model is not None
    assert config.model.base == "out/base"


def test_overrides_reach_the_section_of_the_systems_stage() -> None:
    grouped = {"train": "grpo", "start": "rs", "reward": "holistic", "options": {"kl_coef": 0.5}}
    raw = systems(
        dist={"train": "sft", "data": "teacher", "options": {"epochs": 1}},
        rs=RS | {"options": {"learning_rate": 0.5}},
        grpo=grouped,
        dpo={"train": "dpo", "start": "dist", "data": {"samples_of": "rs"}},
    )
    sections = {"sft": {"epochs": 7, "batch_size": 3}, "rs_sft": {"epochs": 2}}
    sections |= {"grpo": {"samples_per_prompt": 16}, "rl": {"samples_per_prompt": 3}}
    config = load_config(raw | sections)

    def values(name: str, *keys: str) -> list[Any]:
        return [getattr(config.training_options(name), key) for key in keys]

    assert values("dist", "epochs", "batch_size") == [1, 3]
    assert values("rs", "epochs", "learning_rate") == [2, 0.5]
    assert values("grpo", "samples_per_prompt", "kl_coef") == [16, 0.5]
    assert values("rl", "samples_per_prompt") == [3]
    assert values("dpo", "epochs") == [1]


def test_a_system_may_have_a_prompt_of_its_own() -> None:
    shot = {"files": {"asqa": "p.json"}, "shots": 1}
    raw = systems(
        base={"adapter": None, "prompt": {"instruction": "Cite."}},
        shot={"model_of": "base", "prompt": shot},
    )
    config = load_config(raw | {"prompt": {"max_input_tokens": 99}})
    prompt = config.prompt_of("shot")
    assert (prompt.instruction, prompt.shots, prompt.max_input_tokens) == ("Cite.", 1, 99)
    assert config.prompt_of("dist") == config.prompt
    wrong = systems(base={"adapter": None, "prompt": {"shotz": 1}})
    assert mistake(wrong) == "systems.base.prompt.shotz: no such key, did you mean shots?"
