"""The whole configuration: the stages' options, the systems, and what must hold between them.

Only the workflow and the command line read this module; a stage knows its own options and no more.
`python -m citepipe.config` prints the JSON schema that editors read.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import (
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from citepipe import options as opt
from citepipe.errors import InputError

T = TypeVar("T", bound=opt.Options)
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]


Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]


class Verifiers(opt.Options):
    """Who decides what a document supports: `lexical`, a model, or `module:factory?path`."""

    train: str = Field(description="For the teacher's attribution and the search for samples.")
    rl: str | None = Field(
        None, description="For reinforcement learning; null for the one of `train`."
    )
    report: dict[Name, str] = Field(
        min_length=1, description="For scores: the first by plain names, others with a suffix."
    )
    watch: Name | None = Field(
        None,
        description="One of `report` that judges dev answers during reinforcement learning too and "
        "rewards nothing: where it stays behind, the policy games the one that rewards.",
    )

    @model_validator(mode="after")
    def _check_watch(self) -> Self:
        if self.watch is not None and self.watch not in self.report:
            raise ValueError(f"watch: expected one of {', '.join(self.report)}, got {self.watch!r}")
        return self


Decoding = Annotated[
    Literal["greedy", "segment_search"],
    Field(
        description="How test questions are answered: by the likeliest tokens, or by the search, "
        "steered by the rewards of citations. Scores by the verifier that steers it (`train`) are "
        "inflated; report another one too."
    ),
]


class Sampled(opt.Options):
    """Answers sampled from another system, the best by reward."""

    sample: Literal["best_of_n", "segment_search"] = Field(
        description="Whole answers, or answers grown by the best segments."
    )
    from_: str = Field(alias="from", description="The system that is sampled from.")


def _samples(value: Any) -> str:
    return "samples_of" if "samples_of" in _keys_of(value) else "sampled"


def _keys_of(value: Any) -> Mapping[str, Any]:
    """The keys of a section, decoded or read."""
    return value if isinstance(value, Mapping) else getattr(value, "__dict__", {})


class SamplesOf(opt.Options):
    """The answers that another system's training samples, all of them."""

    samples_of: str = Field(description="A system with `data: {sample: ...}`.")


class ChosenOf(SamplesOf):
    """The best of the answers that another system's training samples, chosen by another rule."""

    min_reward: opt.MinReward = Field(
        None, description="As in the section of its sampling; null for the best of every question."
    )


class SFTSystem(opt.Options):
    """A system trained on answers: the teacher's, or selected samples."""

    train: Literal["sft"] = Field(description="Supervised fine-tuning.")
    start: str | None = Field(None, description="The system to go on from; null for the base.")
    data: Annotated[
        Annotated[Literal["teacher"], Tag("teacher")]
        | Annotated[Sampled, Tag("sampled")]
        | Annotated[ChosenOf, Tag("samples_of")],
        Discriminator(lambda value: "teacher" if isinstance(value, str) else _samples(value)),
    ] = Field(description="What it is trained on: `teacher`, or samples of another system.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Overrides of `sft` (on samples: of `rs_sft`)."
    )
    decode: Decoding = "greedy"


class RLSystem(opt.Options):
    """A system trained on rewards of its own answers."""

    train: Literal["ppo", "grpo", "rloo"] = Field(description="The method, see its section.")
    start: str = Field(description="The system to go on from, which is also the KL reference.")
    reward: Literal["fine_grained", "holistic"] = Field(
        description="Each reward on the token that earned it, or their sum on the last one."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Overrides of `rl` (PPO), `grpo` or `rloo`."
    )
    decode: Decoding = "greedy"


class DPOSystem(opt.Options):
    """A system trained on pairs of sampled answers, the better by reward preferred."""

    train: Literal["dpo"] = Field(description="Direct preference optimization.")
    start: str = Field(description="The system to go on from, which is also the reference.")
    data: Annotated[
        Annotated[Sampled, Tag("sampled")] | Annotated[SamplesOf, Tag("samples_of")],
        Discriminator(_samples),
    ] = Field(description="Samples drawn for it, or those that another system is trained on.")
    options: dict[str, Any] = Field(default_factory=dict, description="Overrides of `dpo`.")
    decode: Decoding = "greedy"


Prompted = Annotated[
    dict[str, Any],
    Field(
        default_factory=dict,
        description="Overrides of `prompt`, where it answers and where it is sampled from.",
    ),
]


class AdapterSystem(opt.Options):
    """Somebody's trained adapter, or none: predicted with and scored, and perhaps started from."""

    adapter: str | None = Field(
        description="A PEFT adapter or a whole model: a directory, an archive, or an address; null "
        "for the base model as it is."
    )
    prompt: Prompted
    decode: Decoding = "greedy"


class ModelOfSystem(opt.Options):
    """Another system's model, which answers in another way."""

    model_of: str = Field(description="The system that the model is trained for.")
    prompt: Prompted
    decode: Decoding = "greedy"


class OutputsSystem(opt.Options):
    """Somebody's answers: scored."""

    outputs: dict[opt.Dataset, str] = Field(
        min_length=1, description="Per dataset an ALCE result file, or rows with `output`."
    )


class ExtractSystem(opt.Options):
    """Copies from the documents, without a model: what copying alone scores."""

    extract: Literal["first_sentence"] = Field(
        description="The first sentence of each document with its number; of lists the title."
    )


_KINDS = {"sft": "sft", "dpo": "dpo", "ppo": "rl", "grpo": "rl", "rloo": "rl"}


def _kind(value: Any) -> str | None:
    keys = _keys_of(value)
    if "train" in keys:
        return _KINDS.get(str(keys["train"]))
    kinds = ("adapter", "model_of", "outputs", "extract")
    return next((kind for kind in kinds if kind in keys), None)


System = Annotated[
    Annotated[SFTSystem, Tag("sft")]
    | Annotated[RLSystem, Tag("rl")]
    | Annotated[DPOSystem, Tag("dpo")]
    | Annotated[AdapterSystem, Tag("adapter")]
    | Annotated[ModelOfSystem, Tag("model_of")]
    | Annotated[OutputsSystem, Tag("outputs")]
    | Annotated[ExtractSystem, Tag("extract")],
    Discriminator(
        _kind,
        custom_error_type="system_kind",
        custom_error_message="Input should be one with `train: sft`, `dpo`, `ppo`, `grpo` or "
        "`rloo`, with `adapter`, `model_of`, `outputs` or `extract`",
    ),
]


class Config(opt.Options):
    """Everything a run of the workflow is told."""

    results: str = Field("results", description="The folder of everything that is written.")
    seeds: list[Seed] = Field([0], min_length=1, description="Every system is trained per seed.")
    data: opt.DataOptions | None = Field(None, description="Null if no system needs questions.")
    retrieval: opt.RetrievalOptions | None = Field(
        None, description="Finds documents for questions that come without any; null for none."
    )
    sources: opt.SourcesOptions = Field(
        default_factory=opt.SourcesOptions,
        description="What is named by an address (https://, hf://, Google Drive) is fetched once.",
    )
    prompt: opt.PromptOptions = Field(default_factory=opt.PromptOptions)
    model: opt.ModelOptions | None = Field(None, description="Null if systems are only scored.")
    verifiers: Verifiers
    reward: opt.RewardOptions = Field(default_factory=opt.RewardOptions)
    teacher: opt.TeacherOptions = Field(default_factory=opt.TeacherOptions)
    sft: opt.SFTOptions = Field(
        default_factory=opt.SFTOptions, description="On the teacher's answers."
    )
    rs_sft: opt.SFTOptions = Field(
        default_factory=lambda: opt.SFTOptions(epochs=3), description="On selected samples."
    )
    best_of_n: opt.BestOfNOptions = Field(default_factory=opt.BestOfNOptions)
    segment_search: opt.SegmentSearchOptions = Field(default_factory=opt.SegmentSearchOptions)
    rl: opt.PPOOptions = Field(default_factory=opt.PPOOptions, description="PPO.")
    grpo: opt.GRPOOptions = Field(default_factory=opt.GRPOOptions)
    rloo: opt.RLOOOptions = Field(default_factory=opt.RLOOOptions)
    dpo: opt.DPOOptions = Field(default_factory=opt.DPOOptions)
    tracking: opt.TrackingOptions = Field(default_factory=opt.TrackingOptions)
    devices: int = Field(
        1, ge=1, description="GPUs (without any: processes) that a training job spreads over."
    )
    shards: int = Field(
        1,
        ge=1,
        description="Jobs that sampling is split into. Another number gives the same samples, "
        "drawn again.",
    )
    server: opt.ServerOptions | None = Field(
        None,
        description="A server that answers in place of models in this process; null for none.",
    )
    predict: opt.PredictOptions = Field(default_factory=opt.PredictOptions)
    score: opt.ScoreOptions = Field(default_factory=opt.ScoreOptions)
    miniature: opt.MiniatureOptions | None = Field(None, description="The synthetic world.")
    systems: dict[Name, System] = Field(min_length=1, description="A row of the table each.")

    def seeds_of(self, name: str) -> list[int]:
        """The seeds that a system runs with.

        What was trained elsewhere does not vary with ours, nor do its likeliest answers.
        """
        system = self.systems[name]
        if isinstance(system, ModelOfSystem) and system.decode == "greedy":
            return self.seeds_of(system.model_of)
        drawn = getattr(system, "decode", None) == "segment_search"
        return self.seeds if hasattr(system, "train") or drawn else self.seeds[:1]

    def training_options(self, name: str) -> opt.TrainingOptions:
        """The options that a trained system's stage gets: its section with its own overrides.

        Raises:
            InputError: an override names no key of the section, or has a bad value.
        """
        system = self.systems[name]
        if not isinstance(system, SFTSystem | RLSystem | DPOSystem):
            raise InputError(f"systems.{name}: expected a system that is trained")
        sections: dict[str, opt.TrainingOptions] = {
            "sft": self.sft if system.train == "sft" and system.data == "teacher" else self.rs_sft,
            **{"ppo": self.rl, "grpo": self.grpo, "rloo": self.rloo, "dpo": self.dpo},
        }
        options = _overridden(sections[system.train], system.options, f"systems.{name}.options")
        if getattr(options, "stop_when_diverging", False) and self.verifiers.watch is None:
            raise InputError(f"systems.{name}: stop_when_diverging needs verifiers.watch")
        return options

    def prompt_of(self, name: str) -> opt.PromptOptions:
        """The prompt that a system answers with: `prompt` with its own overrides; raises as
        `training_options` does."""
        system = self.systems[name]
        model = system.model_of if isinstance(system, ModelOfSystem) else None
        prompt = self.prompt_of(model) if model else self.prompt
        return _overridden(prompt, getattr(system, "prompt", {}), f"systems.{name}.prompt")


def _overridden(section: T, own: Mapping[str, Any], place: str) -> T:
    try:
        return type(section).model_validate(section.model_dump(by_alias=True) | dict(own))
    except ValidationError as error:
        raise InputError(f"{place}.{_one_line(error, type(section))}") from None


_FIXED = """max_positions warmup_steps constant_share final_share matrix_learning_rate momentum
learning_rate prompt_weight clip_norm answer_share fact_share"""
REMOVED_KEYS = {
    "rl.value": "no longer chosen: adapters get a value adapter, training of all weights a head on "
    "the policy's states",
    **dict.fromkeys(
        ("teacher.endpoint.requests_per_minute", "teacher.endpoint.tokens_per_minute"),
        "no longer paces requests; write concurrency, an endpoint's own limits are waited for",
    ),
    "teacher.endpoint.max_tokens_total": "no longer caps spending; write price_output and max_cost",
    **dict.fromkeys(
        ("retrieval.method", "retrieval.delta"),
        "no longer chosen: passages are found by Lucene's BM25 with k1 and b; remove it",
    ),
    "retrieval.overlap": "passages no longer overlap; remove it",
    "score.judge": "no longer a section; write score.rules and score.at_most_citations",
    **dict.fromkeys(
        [f"score.{key}" for key in ("lines_are_cut", "groups_are_cut", "years_are_ids")]
        + ["score.skip_empty"],
        "no longer a switch of its own; write score.rules: sane",
    ),
    "scratch": "no longer trains a base model from nothing; write a pretrained one as model.base",
    **dict.fromkeys(
        [f"miniature.base.{key}" for key in _FIXED.split()], "no longer set; remove it"
    ),
    **dict.fromkeys(
        ("sft.fsdp", "rs_sft.fsdp"),
        "weights are no longer sharded; remove it, and for models that do not fit into one device "
        "write model.adapter, model.gradient_checkpointing or model.quantization: 4bit",
    ),
}
"""Keys of earlier versions, and what to write in their place."""


def load_config(raw: Mapping[str, Any]) -> Config:
    """Check a decoded configuration file and compose it.

    `{results}` inside any text stands for the value of `results`, so that inputs which the
    workflow itself makes move along with it.

    Raises:
        InputError: one line with the key, what was expected there, and what was found.
    """
    results = raw.get("results", Config.model_fields["results"].default)
    try:
        config = Config.model_validate(_fill(dict(raw), str(results)))
    except ValidationError as error:
        raise InputError(_one_line(error, Config)) from None
    _check(config)
    return config


def with_types(raw: Any, words: Any) -> Any:
    """A decoded configuration in which `words`, the part that is from the command line (where
    Snakemake has `100` and `null` as text), has the types that YAML gives."""
    if isinstance(words, Mapping) and isinstance(raw, Mapping):
        return {key: with_types(value, words.get(key)) for key, value in raw.items()}
    if isinstance(words, list):
        return [with_types(value, value) for value in words]
    if not isinstance(words, str):
        return raw
    import yaml

    try:
        value = yaml.safe_load(words)
    except yaml.YAMLError:
        return words
    return value if value is None or isinstance(value, (bool, int, float)) else words


def _fill(value: Any, results: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _fill(item, results) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, results) for item in value]
    return value.replace("{results}", results) if isinstance(value, str) else value


def _check(config: Config) -> None:
    """What must hold between sections; raises InputError."""
    path = PurePosixPath(config.results)
    is_below = not path.is_absolute() and ".." not in path.parts and bool(path.parts)
    is_other = os.path.lexists(path) and not Path(path).is_dir()
    if not is_below or config.results != str(path) or is_other or set("{}") & set(config.results):
        raise InputError(
            "results: expected a folder below the working directory, or what may become one, "
            f"without braces in its name, such as results/mine, got {config.results!r}"
        )
    if len(set(config.seeds)) < len(config.seeds):
        raise InputError(f"seeds: expected distinct numbers, got {config.seeds}")
    if config.data is not None:
        for split in ("train", "dev", "test"):
            if not getattr(config.data, split):
                raise InputError(f"data.{split}: expected at least one file, got none")
    for name, system in config.systems.items():
        if isinstance(system, OutputsSystem):
            continue
        for section in ("data",) if isinstance(system, ExtractSystem) else ("data", "model"):
            if getattr(config, section) is None:
                raise InputError(f"{section}: required, because systems.{name} needs it")
        if isinstance(system, ExtractSystem):
            continue
        if not isinstance(system, AdapterSystem | ModelOfSystem):
            options: Any = config.training_options(name)
            if isinstance(system, RLSystem):
                step = options.prompts_per_step * options.samples_per_prompt
                if options.episodes % step:
                    raise InputError(
                        f"systems.{name}: expected episodes that are a multiple of "
                        f"prompts_per_step times samples_per_prompt, {step}, got {options.episodes}"
                    )
        steered = config.reward.citation_recall or config.reward.citation_precision
        if system.decode == "segment_search" and not steered:
            raise InputError(
                "reward: expected citation_recall or citation_precision above 0, because "
                f"systems.{name} is decoded by their search"
            )
        for key, parent in _parents(system).items():
            _check_parent(config, f"systems.{name}.{key}", parent)
        config.prompt_of(name)
    for name in config.systems:
        _check_acyclic(config, name, ())


def _check_parent(config: Config, key: str, name: str) -> None:
    parent, why = config.systems.get(name), ""
    if parent is None:
        expected = f"the name of a system ({', '.join(config.systems)})"
    elif isinstance(parent, OutputsSystem | ExtractSystem):
        expected, why = "a system with a model", ", which has answers only"
    elif isinstance(parent, ModelOfSystem):
        expected, why = "a system with a model of its own", ", which has that of another"
    elif key.endswith("samples_of") and not isinstance(getattr(parent, "data", None), Sampled):
        expected = "a system with `data: {sample: ...}`"
    else:
        return
    raise InputError(f"{key}: expected {expected}, got {name!r}{why}")


def _parents(system: Any) -> dict[str, str]:
    """The systems that a system is made from, by the key that names them."""
    data = getattr(system, "data", None)
    named = {
        "start": getattr(system, "start", None),
        "model_of": getattr(system, "model_of", None),
        "data.from": getattr(data, "from_", None),
        "data.samples_of": getattr(data, "samples_of", None),
    }
    return {key: name for key, name in named.items() if name is not None}


def _check_acyclic(config: Config, name: str, seen: tuple[str, ...]) -> None:
    if name in seen:
        circle = " -> ".join((*seen[seen.index(name) :], name))
        raise InputError(f"systems.{name}: expected no circle, got {circle}")
    for parent in _parents(config.systems[name]).values():
        _check_acyclic(config, parent, (*seen, name))


def _one_line(error: ValidationError, model: type[opt.Options]) -> str:
    """The first of pydantic's findings as `section.key: expected ..., got ...`."""
    findings = error.errors(include_url=False, include_context=False)
    # A key that nothing knows is the likeliest cause of the others, a missing key for instance.
    finding = min(findings, key=lambda item: item["type"] != "extra_forbidden")
    place = _place(finding["loc"])
    key = ".".join(place) or "the configuration"
    if key in REMOVED_KEYS:
        return f"{key}: {REMOVED_KEYS[key]}"
    if finding["type"] == "extra_forbidden":
        known = _keys(model, place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
        return f"{key}: no such key, {hint}" if known else f"{key}: no such key"
    if finding["type"] == "missing":
        return f"{key}: required, but missing"
    if finding["type"] == "value_error":
        # It says what was expected itself, and what was given may hold a secret.
        return f"{key}: {finding['msg'].removeprefix('Value error, ')}"
    expected = re.sub(r"^\w+ should (?:be |have |match )?", "", finding["msg"])
    return f"{key}: expected {expected}, got {finding['input']!r}"


def _place(loc: tuple[int | str, ...]) -> list[str]:
    """A finding's place in the file: pydantic also names the member of a union that it tried."""
    place = [str(part) for part in loc]
    if place[:1] == ["systems"]:
        del place[2:3]
        if place[2:3] == ["data"]:
            del place[3:4]
    return place


def _keys(model: type[opt.Options], place: list[str]) -> list[str]:
    """The keys of the section at a place of the configuration, in the order of its model."""
    for part in place:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        kinds = (annotation, *get_args(annotation))
        sections = [k for k in kinds if isinstance(k, type) and issubclass(k, opt.Options)]
        if len(sections) != 1:
            return []
        model = sections[0]
    return [field.alias or name for name, field in model.model_fields.items()]


if __name__ == "__main__":
    print(json.dumps(Config.model_json_schema(), sort_keys=True, indent=1))
