"""The configuration: what it accepts, and the one line it says otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from citepipe.config import json_schema, load_config
from citepipe.errors import InputError
from citepipe.options import ServerOptions, SFTOptions, resolved

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


def mistake(raw: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        load_config(raw)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "path",
    [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))],
    ids=lambda p: p.stem,
)
def test_configurations_of_the_project_are_accepted(path: Path) -> None:
    config = load_config(yaml.safe_load(path.read_text()))
    seven = {"dist", "h_rs", "fg_rs", "h_rl", "fg_rl", "h_rs_rl", "fg_rs_rl"}
    if path.stem == "methods":
        assert {"fg_rl", "fg_grpo", "h_grpo", "fg_rloo", "h_rloo", "dpo"} <= set(config.systems)
    elif path.stem == "own-documents":
        assert {"dist", "fg_rs", "fg_rl"} <= set(config.systems)
    else:
        assert seven <= set(config.systems)


def test_schema_file_is_the_one_that_the_models_generate() -> None:
    path = ROOT / "workflow" / "schemas" / "config.schema.json"
    assert json.loads(path.read_text()) == json_schema(), "run `make schema`"


def test_every_key_of_the_schema_is_described() -> None:
    schema = json_schema()
    for name, section in [("", schema), *schema["$defs"].items()]:
        for key, field in section.get("properties", {}).items():
            # A section is described by the docstring of its class.
            refers = "$ref" in json.dumps(field)
            assert field.get("description") or refers or "const" in field, f"{name}.{key}"


def test_mistyped_key_is_named_with_the_one_that_was_meant() -> None:
    raw = configuration(rl={"lerning_rate": 1e-4})
    assert mistake(raw) == "rl.lerning_rate: no such key, did you mean learning_rate?"


def test_a_key_of_earlier_versions_is_refused_with_what_to_write_instead() -> None:
    assert "write a pretrained one as model.base" in mistake(configuration(scratch={"texts": []}))


def test_mistyped_section_is_named() -> None:
    assert mistake(configuration(sytems={})) == "sytems: no such key, did you mean systems?"


def test_bad_value_is_named_with_what_was_expected() -> None:
    raw = configuration(best_of_n={"n": "many"})
    assert mistake(raw).startswith("best_of_n.n: expected a valid integer")
    assert mistake(raw).endswith("got 'many'")


def test_missing_section_is_named() -> None:
    raw = configuration()
    del raw["verifiers"]
    assert mistake(raw) == "verifiers: required, but missing"


def test_places_inside_a_system_are_those_of_the_file() -> None:
    raw = systems(rs={"train": "sft", "start": "dist", "data": {"sample": "all", "from": "dist"}})
    assert mistake(raw).startswith("systems.rs.data.sample: expected 'best_of_n' or")


def test_system_of_no_kind() -> None:
    assert mistake(systems(odd={"train": "trpo"})) == (
        "systems.odd: expected one with `train: sft`, `dpo`, `ppo`, `grpo` or `rloo`, with "
        "`adapter`, `model_of` or `outputs`, got {'train': 'trpo'}"
    )


def test_samples_of_a_system_that_has_none() -> None:
    dpo = {"train": "dpo", "start": "dist", "data": {"samples_of": "dist"}}
    assert mistake(systems(dpo=dpo)) == (
        "systems.dpo.data.samples_of: expected a system with `data: {sample: ...}`, got 'dist'"
    )
    dpo["data"] = {"samples_of": "rs"}
    assert load_config(systems(dpo=dpo)).systems["dpo"].data.samples_of == "rs"  # type: ignore[union-attr]


def test_each_method_has_a_section_of_its_own() -> None:
    raw = systems(
        grpo={"train": "grpo", "start": "rs", "reward": "holistic", "options": {"kl_coef": 0.5}}
    ) | {"grpo": {"samples_per_prompt": 16}, "rl": {"samples_per_prompt": 3}}
    config = load_config(raw)
    options = config.training_options("grpo")
    assert (options.samples_per_prompt, options.kl_coef) == (16, 0.5)  # type: ignore[attr-defined]
    assert config.training_options("rl").samples_per_prompt == 3  # type: ignore[attr-defined]
    bad = systems(
        grpo={"train": "grpo", "start": "rs", "reward": "holistic", "options": {"lam": 0.5}}
    )
    assert mistake(bad).startswith("systems.grpo.options.lam: no such key")


def test_start_that_is_no_system() -> None:
    raw = systems(rl={"train": "ppo", "start": "nobody", "reward": "holistic"})
    assert mistake(raw) == (
        "systems.rl.start: expected the name of a system (dist, rs, rl), got 'nobody'"
    )


def test_start_that_has_answers_only() -> None:
    raw = systems(
        people={"outputs": {"asqa": "people.json"}},
        rl={"train": "ppo", "start": "people", "reward": "holistic"},
    )
    assert mistake(raw) == (
        "systems.rl.start: expected a system with a model, got 'people', which has answers only"
    )


def test_another_systems_model_can_answer_by_search() -> None:
    raw = systems(
        searched={"model_of": "rl", "decode": "segment_search"},
        theirs={"adapter": "theirs", "decode": "segment_search"},
    )
    found = load_config(raw).systems
    assert {name: system.decode for name, system in found.items()} == {  # type: ignore[union-attr]
        "dist": "greedy",
        "rs": "greedy",
        "rl": "greedy",
        "searched": "segment_search",
        "theirs": "segment_search",
    }


@pytest.mark.parametrize(
    ("system", "line"),
    [
        (
            {"model_of": "nobody"},
            "systems.odd.model_of: expected the name of a system (dist, rs, rl, people, again, odd)"
            ", got 'nobody'",
        ),
        (
            {"model_of": "people"},
            "systems.odd.model_of: expected a system with a model, got 'people', which has answers "
            "only",
        ),
        (
            {"model_of": "again"},
            "systems.odd.model_of: expected a system with a model of its own, got 'again', which "
            "has that of another",
        ),
        (
            {"model_of": "odd"},
            "systems.odd.model_of: expected a system with a model of its own, got 'odd', which has "
            "that of another",
        ),
        (
            {"train": "ppo", "start": "again", "reward": "holistic"},
            "systems.odd.start: expected a system with a model of its own, got 'again', which has "
            "that of another",
        ),
        ({"model_of": "dist", "decode": "beam"}, "systems.odd.decode: expected 'greedy' or"),
        (
            {"outputs": {"asqa": "people.json"}, "decode": "greedy"},
            "systems.odd.decode: no such key",
        ),
    ],
)
def test_what_cannot_answer_by_search(system: dict[str, Any], line: str) -> None:
    raw = systems(people={"outputs": {"asqa": "people.json"}}, again={"model_of": "rl"}, odd=system)
    assert mistake(raw).startswith(line)


def test_search_needs_a_reward_for_citations() -> None:
    cited = {"citation_recall": 0.0, "citation_precision": 0.1}
    searched = systems(searched={"model_of": "rl", "decode": "segment_search"})
    load_config(searched | {"reward": cited})
    nothing = cited | {"citation_precision": 0.0}
    load_config(configuration(reward=nothing))
    assert mistake(searched | {"reward": nothing}) == (
        "reward: expected citation_recall or citation_precision above 0, because systems.searched "
        "is decoded by their search"
    )


@pytest.mark.parametrize("shards", [0, -1, 1.5])
def test_what_is_no_number_of_shards(shards: object) -> None:
    assert mistake(configuration(shards=shards)).startswith("shards: expected ")


def test_a_server_needs_no_more_than_a_section() -> None:
    assert load_config(configuration()).server is None
    server = load_config(configuration(server={})).server
    assert server is not None
    assert server.url == "http://127.0.0.1:8000/v1"
    assert mistake(configuration(server={"url": "localhost"})).startswith("server.url: expected")
    assert mistake(configuration(server={"ulr": "http://localhost"})) == (
        "server.ulr: no such key, did you mean url?"
    )


def test_where_a_server_is_and_how_it_is_asked_decides_no_result() -> None:
    here = ServerOptions(url="http://127.0.0.1:1/v1", concurrency=3, timeout=5, retries=1)
    there = ServerOptions(url="http://127.0.0.1:2/v1", api_key_variable="KEY")
    assert resolved(here) == resolved(there) == {"model": None}


def test_circle_of_systems() -> None:
    raw = systems(
        rs={"train": "sft", "start": "rl", "data": {"sample": "best_of_n", "from": "dist"}}
    )
    assert mistake(raw) == "systems.rs: expected no circle, got rs -> rl -> rs"


@pytest.mark.parametrize("seed", [-1, True, 2**32, 0.5])
def test_what_is_no_seed(seed: object) -> None:
    assert mistake(configuration(seeds=[seed])).startswith("seeds.0: expected ")


def test_seeds_from_the_command_line_are_words() -> None:
    assert load_config(configuration(seeds=["0", "12"])).seeds == [0, 12]
    assert mistake(configuration(seeds=["-1"])).startswith("seeds.0: expected ")


def test_repeated_seed() -> None:
    assert mistake(configuration(seeds=[1, 1])) == "seeds: expected distinct numbers, got [1, 1]"


@pytest.mark.parametrize("results", ["/tmp/out", "../out", ".", "./out", "out/"])
def test_results_outside_the_working_directory(results: str) -> None:
    assert mistake(configuration(results=results)).startswith("results: expected a folder below")


def test_results_stand_for_themselves_in_paths() -> None:
    raw = configuration(results="out", model={"base": "{results}/base"})
    model = load_config(raw).model
    assert model is not None
    assert model.base == "out/base"


def test_overrides_reach_the_section_of_the_systems_stage() -> None:
    raw = systems(
        dist={"train": "sft", "data": "teacher", "options": {"epochs": 1}},
        rs={
            "train": "sft",
            "start": "dist",
            "data": {"sample": "best_of_n", "from": "dist"},
            "options": {"learning_rate": 0.5},
        },
    )
    config = load_config(raw | {"sft": {"epochs": 7, "batch_size": 3}, "rs_sft": {"epochs": 2}})
    dist, rs = config.training_options("dist"), config.training_options("rs")
    assert isinstance(dist, SFTOptions)
    assert isinstance(rs, SFTOptions)
    assert (dist.epochs, dist.batch_size) == (1, 3)
    assert (rs.epochs, rs.learning_rate) == (2, 0.5)


def test_override_that_the_stage_does_not_know() -> None:
    raw = systems(dist={"train": "sft", "data": "teacher", "options": {"epoch": 1}})
    assert mistake(raw) == "systems.dist.options.epoch: no such key, did you mean epochs?"


def test_model_is_required_only_by_systems_that_have_one() -> None:
    raw = configuration(systems={"people": {"outputs": {"asqa": "people.json"}}})
    del raw["model"], raw["data"]
    assert load_config(raw).model is None
    raw = configuration()
    del raw["model"]
    assert mistake(raw) == "model: required, because systems.dist has a model"
