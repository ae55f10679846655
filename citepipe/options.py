"""Every option of the configuration, a class per section.

A class says what a section may hold and nothing of what is done with it. Fields made by `run_only`
(sizes of batches, intervals of saving, where a server is) do not change results: `resolved` leaves
them out, so that a change to them makes no stage stale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)


class Options(BaseModel):
    """A section of the configuration: immutable, and a key that nothing reads is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)


RUN_ONLY: dict[str, JsonValue] = {"run_only": True}
"""Marks a field that says how a stage runs and not what comes out of it."""


def run_only(default: Any, description: str, **limits: Any) -> Any:
    """A field that is `RUN_ONLY`."""
    return Field(default, description=description, json_schema_extra=RUN_ONLY, **limits)


def resolved(section: Options) -> dict[str, Any]:
    """A section as plain values, in the order of its fields, without those that are `RUN_ONLY`."""
    values = section.model_dump(mode="json", by_alias=True)
    for name, field in type(section).model_fields.items():
        key, value = field.alias or name, getattr(section, name)
        if field.json_schema_extra == RUN_ONLY:
            del values[key]
        elif isinstance(value, Options):
            values[key] = resolved(value)
    return values


Dataset = Literal["asqa", "qampari", "eli5", "expertqa"]


def _check_size(value: Any) -> Any:
    """Both forms at once, so that a complaint is about the one that was meant."""
    sizes = value if isinstance(value, Mapping) else {"asqa": 0 if value is None else value}
    for name, size in sizes.items():
        if name not in get_args(Dataset) or type(size) is not int or size < 0:
            raise ValueError(
                f"expected rows per dataset ({', '.join(get_args(Dataset))}), such as "
                f"{{asqa: 1000}}, or one whole number from 0, got {value!r}"
            )
    return value


Size = Annotated[dict[Dataset, int] | int | None, BeforeValidator(_check_size)]


class DataOptions(Options):
    """The files with questions, and how many rows of each dataset are taken."""

    train: list[str] = Field(description="Files with training rows (JSON list or JSONL).")
    dev: list[str] = Field(description="Files with development rows.")
    test: dict[Dataset, str] = Field(description="A test file per dataset.")
    datasets: list[Dataset] | None = Field(
        None, description="Of the files' datasets those that train and dev take; null for all."
    )
    own_as: Dataset = Field(
        "eli5", description="The dataset as which rows are read and scored that name none."
    )
    train_size: Size = Field(
        None, description="Rows taken by the seed: per dataset, or in all; null for all there are."
    )
    dev_size: Size = Field(None, description="The same for dev.")
    test_size: Size = Field(None, description="The same for test.")
    repetitions: Literal["rows", "questions", "keep"] = Field(
        "rows",
        description="What is left out of a split: rows with the question and documents of an "
        "earlier one, rows with its question, or nothing; what is in another split always.",
    )
    without_documents: Literal["refuse", "leave_out"] = Field(
        "refuse", description="Rows without documents, unless `retrieval` finds them some."
    )
    documents: int = Field(5, ge=1, description="Documents kept per question, from the first on.")
    shorter: Literal["summary", "extraction"] | None = Field(
        None, description="Documents that this shorter text of theirs calls irrelevant go (ALCE)."
    )
    seed: int = Field(42, description="Seed of the selection and of the order.")

    @model_validator(mode="after")
    def _check_datasets(self) -> Self:
        if self.datasets == []:
            raise ValueError("datasets: expected at least one, or null for all, got none")
        taken = self.datasets or get_args(Dataset)
        for key in ("train_size", "dev_size"):
            sizes = getattr(self, key)
            for name in sizes if isinstance(sizes, dict) else ():
                if name not in taken:
                    raise ValueError(f"{key}: expected datasets of data.datasets, got {name!r}")
        return self


_Latin = Literal["danish", "dutch", "english", "french", "german", "italian", "norwegian"]
_More = Literal["portuguese", "russian", "spanish", "swedish"]
Stemmer = Literal[_Latin, _More, "arabic", "finnish", "hungarian", "romanian"]
StopWords = Literal[_Latin, _More, "turkish"]


class RetrievalOptions(Options):
    """BM25 over texts of one's own: questions without documents get the best passages."""

    passages: list[str] | None = Field(
        None,
        min_length=1,
        description="Files, or folders with all below them: texts (.txt, .md) and passages (.jsonl "
        "with `text` and perhaps `title` and `id`; .tsv with id, text, title). null: each "
        "question's own documents are cut into passages, of which it keeps the best.",
    )
    cut: Literal["texts", "all", "nothing"] = Field(
        "texts", description="What is cut into passages; rows of .jsonl and .tsv only by `all`."
    )
    words: int = Field(100, ge=10, description="Words per passage, at most (ALCE's have 100).")
    stemmer: Stemmer | None = Field(
        "english", description="Snowball's stemmer of this language; null compares whole words."
    )
    stop_words: StopWords | list[str] | None = Field(
        "english", description="Words that are not looked for: a language's, a list, or null."
    )
    k1: float = Field(1.2, ge=0, description="How much a word's repetitions in a passage count.")
    b: float = Field(0.75, ge=0, le=1, description="How much long passages are held back.")


class SourcesOptions(Options):
    """Downloads: the hub, Google Drive, http and https."""

    cache: str | None = Field(
        None, description="What was fetched, for all runs; null for ~/.cache/citepipe/sources."
    )
    offline: bool = Field(
        False, description="Use no network, as with CITEPIPE_OFFLINE=1 or HF_HUB_OFFLINE=1."
    )
    sha256: dict[str, str] = Field(
        default_factory=dict,
        description="Digests by address, archives packed; of files in a folder by ADDRESS#FILE.",
    )
    timeout: float = Field(60.0, gt=0, description="Longest wait for a connection's next byte (s).")
    retries: int = Field(8, ge=0, description="How often a cut-off download is gone on with.")

    @field_validator("sha256")
    @classmethod
    def _digests(cls, digests: dict[str, str]) -> dict[str, str]:
        for address, digest in digests.items():
            if not re.fullmatch("[0-9a-fA-F]{64}", digest):
                raise ValueError(f"expected 64 hexadecimal digits for {address}, got {digest!r}")
        return {address: digest.lower() for address, digest in digests.items()}


def has_places(*places: str) -> AfterValidator:
    """A template has each of these places, such as {Q}: without them a model sees no question."""

    def check(template: str) -> str:
        if missing := [place for place in places if place not in template]:
            raise ValueError(f"expected {' and '.join(missing)} in the template")
        return template

    return AfterValidator(check)


class TemplateOptions(Options):
    """ALCE's prompt templates (`prompts/*_default.json`), or shorter ones."""

    instruction: str = Field(
        "Instruction: Write an accurate, engaging, and concise answer for the given question "
        "using only the provided search results (some of which might be irrelevant) and cite "
        "them properly. Use an unbiased and journalistic tone. Always cite for any factual "
        "claim. When citing several search results, use [1][2][3]. Cite at least one document "
        "and at most three documents in each sentence. If multiple documents support the "
        "sentence, only cite a minimum sufficient subset of the documents.",
        description="Takes the place of {INST}.",
    )
    list_instruction: str | None = Field(
        None, description="The instruction for QAMPARI's lists; null takes `instruction`."
    )
    demo_prompt: Annotated[str, has_places("{Q}", "{D}")] = Field(
        "{INST}\n\nQuestion: {Q}\n\n{D}\nAnswer:{A}",
        description="The whole prompt: {INST}, {Q} the question, {D} the documents, {A} nothing.",
    )
    doc_prompt: Annotated[str, has_places("{P}")] = Field(
        "Document [{ID}](Title: {T}): {P}\n",
        description="One document: {ID} its number, {T} its title, {P} its text.",
    )
    files: dict[Dataset, str] = Field(
        default_factory=dict,
        description="Per dataset a prompt file of ALCE's, which overrides the templates here.",
    )
    shots: int = Field(0, ge=0, description="Demonstrations of the prompt file before a question.")
    demo_seed: int | None = Field(
        None, ge=0, lt=2**32, description="Draws the demonstrations, as ALCE; null: the first."
    )
    demo_documents: int | None = Field(
        None, ge=0, description="Documents of a demonstration; null for its own, up to 5."
    )
    demo_turns: bool = Field(
        False, description="In a chat template, demonstrations are earlier turns of the chat."
    )
    documents: Literal["text", "summary", "extraction"] = Field(
        "text", description="What is shown of a document: its text, or ALCE's shorter one if any."
    )
    max_input_tokens: int = Field(
        1200, ge=8, description="Longer prompts get their documents shortened (tokens)."
    )


class PromptOptions(TemplateOptions):
    """What the model that is trained sees, and where its answers end."""

    chat: Literal["auto", "template", "plain"] = Field(
        "auto",
        description="Whether the prompt is a user's message in the tokenizer's chat template or "
        "plain text that the answer goes on from; auto: template if the tokenizer has one.",
    )
    system: str | None = Field(
        None, description="The system's message of a chat; null for what the template has."
    )
    stop: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None,
        description="Strings before which an answer ends, learnt or generated; null: a newline, in "
        "a chat template none.",
    )


class AdapterOptions(Options):
    """A LoRA adapter (PEFT)."""

    r: int = Field(64, ge=1, description="Rank of the adapter's matrices.")
    alpha: float = Field(16, gt=0, description="Scale: the update is multiplied by alpha / r.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout in front of the adapter.")
    target_modules: str | list[str] = Field(
        "all-linear", description="Names of the modules that get an adapter, or all-linear."
    )


class ModelOptions(Options):
    """The base model that every system starts from."""

    base: str = Field(
        description="A model directory, a name on the Hugging Face hub, or a GGUF file: a path, an "
        "address, or package:NAME/FILE of an installed package."
    )
    revision: str | None = Field(None, description="The hub revision (commit, tag or branch).")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "bfloat16",
        description="The precision of the base model's weights; auto: bfloat16 where the machine "
        "multiplies it in hardware, else float32, so results depend on the machine.",
    )
    quantization: Literal["none", "4bit"] = Field(
        "none", description="4bit loads the base model in NF4 (bitsandbytes, needs a GPU)."
    )
    adapter: AdapterOptions | None = Field(
        default_factory=AdapterOptions,
        description="The shape of new adapters; null trains all weights.",
    )
    attention: str | None = Field(
        None, description="transformers' eager, sdpa, flash_attention_2, ...; null: the model's."
    )
    gradient_checkpointing: bool = run_only(
        False, "Recompute activations in the backward pass: less memory, more time."
    )


def _whole_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise ValueError(f"expected an http or https URL: {error}") from None
    if not is_whole or not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError("expected an http or https URL such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(
            "expected a URL without user, '?' and '#'; a key goes into the variable that "
            "api_key_variable names"
        )
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_whole_url)]


class APIOptions(Options):
    """An OpenAI-compatible server, and how patiently it is queried."""

    url: Url = run_only("http://127.0.0.1:8000/v1", "What the paths of its API begin with.")
    concurrency: int = run_only(64, "Requests under way at once.", ge=1)
    timeout: float = run_only(300.0, "Longest wait for an answer's next byte (s).", gt=0)
    retries: int = run_only(8, "How often a failed request is tried again.", ge=0)
    api_key_variable: str | None = run_only(
        None, "Name of the environment variable that holds the API key; null for no key."
    )

    @field_validator("api_key_variable")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        # Perhaps it is the key itself: an error must not show it.
        if name is not None and not (name.isascii() and name.isidentifier()):
            raise ValueError(
                "expected the name of an environment variable, such as OPENAI_API_KEY, not a key"
            )
        return name


class ServerOptions(APIOptions):
    """A server, such as vLLM, that runs the model in place of this process, or several alike."""

    urls: list[Url] = run_only([], "In the place of url: servers that share the requests.")
    start: list[str] | None = run_only(
        None,
        "In the place of url: each job starts `vllm serve` on the GPUs that it has, with these "
        "further arguments ([] for none), and ends it.",
    )
    model: str | None = Field(
        None, min_length=1, description="The model's name there; null: the first it serves as base."
    )
    concurrency: int = run_only(64, "Requests under way at once, per server.", ge=1)

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.start is not None and {"url", "urls"} & self.model_fields_set:
            raise ValueError("start: expected no url or urls with it: those run already")
        return self


class EndpointOptions(APIOptions):
    """An OpenAI-compatible endpoint of chat completions that answers with citations."""

    model: str | None = Field(None, min_length=1, description="The model's name there.")
    concurrency: int = run_only(8, "Requests under way at once.", ge=1)
    system: str | None = Field(
        "You are a helpful assistant that answers the following questions with proper citations.",
        description="The system's message; null for none. ALCE's by default.",
    )
    temperature: float | None = Field(0.5, ge=0, description="Null leaves it to the endpoint.")
    max_tokens: int = Field(300, ge=1, description="Tokens of an answer, at most.")
    tokens_key: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the endpoint calls that limit."
    )
    price_input: float = run_only(0.0, "Price of a million tokens of prompts.", ge=0)
    price_output: float = run_only(0.0, "Price of a million tokens of answers.", ge=0)
    max_cost: float | None = run_only(
        None,
        "Spending, of all runs on these results, ends before this. An open question counts a token "
        "per byte of its prompt, and `max_tokens` or as many as the longest answer was billed for.",
        gt=0,
    )

    @model_validator(mode="after")
    def _check_prices(self) -> Self:
        if self.max_cost is not None and not (self.price_input or self.price_output):
            raise ValueError("max_cost: expected price_input or price_output with it, both are 0")
        return self


class TeacherPromptOptions(TemplateOptions):
    """The prompts of a large model, of which no tokenizer is at hand."""

    max_input_tokens: int = Field(
        3500, ge=8, description="Longer prompts get their documents shortened (4 characters each)."
    )


class TeacherOptions(Options):
    """Where the cited answers that are distilled come from."""

    citations: Literal["given", "attribute", "endpoint"] = Field(
        "given",
        description="given: `output` of the rows. attribute: rows without get their human answer, "
        "each sentence citing the fewest documents that support it for the training verifier. "
        "endpoint: rows without are answered by the model of `endpoint`.",
    )
    at_most: int = Field(3, ge=1, description="attribute: citations per sentence, at most.")
    keep_uncited: bool = Field(False, description="attribute: keep sentences without support.")
    endpoint: EndpointOptions | None = Field(None, description="Where it is, and what it may cost.")
    prompt: TeacherPromptOptions = Field(
        default_factory=TeacherPromptOptions, description="The endpoint's prompts."
    )
    min_reward: float | None = Field(
        None,
        description="Answers with less citation reward by the training verifier go; null for none.",
    )


class RewardOptions(Options):
    """The size of each reward, given as + for right and - for wrong; 0 switches it off."""

    citation_recall: float = Field(0.2, ge=0, description="Per statement: supported or not.")
    citation_precision: float = Field(0.2, ge=0, description="Per citation: right or wrong.")
    correctness: float = Field(0.2, ge=0, description="Per gold answer: hit or missed.")
    refusal: float = Field(
        0.0, ge=0, description="Per answer: declines just where no document has a gold answer."
    )
    at_most_citations: int = Field(
        3, ge=1, description="Citations of a statement that count, in the order of the text."
    )
    expected_list_items: int = Field(
        5, ge=1, description="QAMPARI: answers expected; misses beyond them cost nothing."
    )
    splitter: str = Field("punkt-rules", description="Sentence splitter: punkt-rules or punkt.")


class TrainingOptions(Options):
    """Learning rate, memory and saving, the same for every kind of training."""

    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate (AdamW).")
    max_grad_norm: float = Field(0.3, gt=0, description="Gradient clipping (norm).")
    tokens_per_pass: int | None = run_only(
        None, "Tokens of a pass on a device, with padding; null for what suits the device.", ge=1
    )
    save_every: int = run_only(50, "Optimizer steps between two saves of the state.", ge=1)
    save_minutes: float = run_only(10.0, "Minutes after which it is saved in any case.", gt=0)


Schedule = Literal[
    "linear", "cosine", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
]
"""Those of transformers that need nothing but the number of steps and of those that warm up."""


class SupervisedOptions(TrainingOptions):
    """Passes over a fixed set of answers or pairs of answers."""

    epochs: float = Field(10, gt=0, description="Passes over the answers or pairs.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps; overrides epochs.")
    batch_size: int = Field(
        2, ge=1, description="Answers (or pairs) per optimizer step, over all devices."
    )
    schedule: Schedule = Field("cosine", description="A transformers learning-rate schedule.")
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the steps that warm up.")
    max_output_tokens: int = Field(200, ge=1, description="Longer answers are cut (tokens).")
    evaluations: int = Field(10, ge=1, description="How often, over the run, dev loss is computed.")


class SFTOptions(SupervisedOptions):
    """Supervised fine-tuning on cited answers, loss on the answer only."""


class DPOOptions(SupervisedOptions):
    """DPO (Rafailov et al. 2023, arXiv 2305.18290); an answer is preferred for its reward."""

    epochs: float = Field(1, gt=0, description="Passes over the pairs.")
    batch_size: int = Field(8, ge=1, description="Pairs per optimizer step, over all devices.")
    learning_rate: float = Field(5e-6, gt=0, description="Peak learning rate (AdamW).")
    schedule: Schedule = Field("linear", description="A transformers learning-rate schedule.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps that warm up.")
    beta: float = Field(0.1, gt=0, description="How strongly the start's probabilities hold.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Probability that a preference is taken to be wrong."
    )
    pairs_per_question: int = Field(
        1, ge=1, description="Best with worst answer, second best with second worst, and so on."
    )
    margin: float = Field(0.0, ge=0, description="A pair's rewards differ by more than this.")


def _check_min_reward(value: Any) -> Any:
    if value not in ("greedy", None) and type(value) not in (int, float):
        raise ValueError(f"expected greedy, a number or null, got {value!r}")
    return value


MinReward = Annotated[float | Literal["greedy"] | None, BeforeValidator(_check_min_reward)]
Temperature = Annotated[float, Field(gt=0, description="Divides the logits when sampling.")]
TopK = Annotated[int, Field(ge=0, description="Sample among the k likeliest tokens; 0 for all.")]
AnswerTokens = Annotated[int, Field(ge=1, description="Tokens per answer, at most.")]


class SamplingOptions(Options):
    """How answers to training questions are sampled for a choice among them."""

    questions: int | None = Field(None, ge=1, description="Train questions used; null for all.")
    temperature: Temperature = 0.6
    top_k: TopK = 20
    max_new_tokens: AnswerTokens = 200
    min_reward: MinReward = Field(
        "greedy",
        description="Questions go whose best sample earns no more than this, or than the sampled "
        "model's own likeliest answer (greedy); null for none.",
    )
    batch_size: int | None = run_only(
        None, "Sequences generated at once; null for what memory allows.", ge=1
    )


class BestOfNOptions(SamplingOptions):
    """Whole answers are sampled and the one with the highest summed reward is kept."""

    n: int = Field(16, ge=1, description="Samples per question.")


class SegmentSearchOptions(SamplingOptions):
    """Answers grow segment by segment; the beams with the highest reward so far are kept."""

    beams: int = Field(8, ge=1, description="Beams kept after each segment.")
    samples_per_beam: int = Field(2, ge=1, description="Continuations drawn from each beam.")
    depth: int = Field(5, ge=1, description="Segments per answer, at most.")
    depth_list: int = Field(10, ge=1, description="The same for list answers (QAMPARI).")
    drop_parent: float = Field(
        0.5,
        ge=0,
        le=1,
        description="QAMPARI: probability that a beam's unextended parent is dropped at the first "
        "segment, falling linearly to 0 at the last; it forces progress.",
    )
    split_at_every_stop: bool = Field(
        False, description="End a segment at every '.', as the paper's code, also inside 'U.S.'."
    )


class RLOptions(TrainingOptions):
    """What all methods that learn from their own samples share."""

    episodes: int = Field(48_000, ge=1, description="Answers sampled over the whole run.")
    prompts_per_step: int = Field(2, ge=1, description="Questions per rollout, over all devices.")
    samples_per_prompt: int = Field(4, ge=1, description="Answers sampled per question.")
    epochs_per_rollout: int = Field(1, ge=1, description="Passes over each rollout.")
    minibatches: int = Field(1, ge=1, description="Optimizer steps per pass over a rollout.")
    learning_rate: float = Field(3e-5, gt=0, description="Peak learning rate of the policy.")
    warmup_steps: int = Field(100, ge=0, description="Linear warm-up (optimizer steps).")
    max_grad_norm: float = Field(0.5, gt=0, description="Gradient clipping (norm).")
    clip_ratio: float = Field(0.2, gt=0, description="Clip of the probability ratio.")
    kl_coef: float = Field(
        0.3, ge=0, description="Weight of the per-token KL penalty against the starting model."
    )
    kl_target: float | None = Field(
        None, gt=0, description="Moves kl_coef towards this KL per answer (nats); null keeps it."
    )
    kl_horizon: int = Field(
        10_000, ge=1, description="Answers over which kl_coef is moved; more moves it less."
    )
    max_kl: float = Field(100.0, gt=0, description="A rollout's KL above this ends the run (nats).")
    stop_when_diverging: bool = Field(
        False,
        description="Keep no policy that has a higher reward on dev but a lower citation F1 by "
        "`verifiers.watch`, and end the run at the second such evaluation in a row.",
    )
    temperature: Temperature = 0.7
    top_k: TopK = 20
    max_new_tokens: AnswerTokens = 200
    batch_size: int = run_only(32, "Sequences generated at once, fewer when memory runs out.", ge=1)
    evaluations: int = Field(
        10, ge=1, description="How often, over the run, dev answers are generated and rewarded."
    )
    dev_questions: int = Field(100, ge=1, description="Dev questions per evaluation.")
    save_every: int = run_only(10, "Rollouts between two saves of the state.", ge=1)


class PPOOptions(RLOptions):
    """Token-level PPO (FineGrainedRLHF), against the model that training starts from."""

    value_learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate of the value model; null for the policy's."
    )
    value_warmup: int = Field(0, ge=0, description="Rollouts in which only the value model learns.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount per token.")
    lam: float = Field(0.95, ge=0, le=1, description="Lambda of generalized advantage estimation.")
    clip_value: float = Field(0.2, gt=0, description="Clip of the value's change.")
    value_coef: float = Field(1.0, ge=0, description="Weight of the value loss.")
    whiten_rewards: Literal["divide", "keep"] | None = Field(
        "divide",
        description="divide: rewards less KL penalty are divided by their standard deviation. "
        "keep: then their mean is put back, as in FineGrainedRLHF, which charges or pays every "
        "token and so length. null: as they are.",
    )
    whiten_advantages: bool = Field(True, description="Standardize advantages over the rollout.")


class GroupOptions(RLOptions):
    """Methods without a value model, which compare the answers to a question with each other."""

    prompts_per_step: int = Field(4, ge=1, description="Questions per rollout, over all devices.")
    samples_per_prompt: int = Field(8, ge=2, description="Answers sampled per question.")
    temperature: Temperature = 1.0
    top_k: TopK = 0


class GRPOOptions(GroupOptions):
    """Group relative policy optimization (DeepSeekMath, arXiv 2402.03300)."""

    kl_coef: float = Field(
        0.04, ge=0, description="Weight of the KL divergence from the starting model, in the loss."
    )
    normalize: Literal["sum", "parts"] = Field(
        "sum",
        description="Standardized in a group is the sum of the rewards, or each component by "
        "itself, then the sum over the batch (GDPO, arXiv 2601.05242).",
    )


class RLOOOptions(GroupOptions):
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv 2402.14740)."""

    kl_coef: float = Field(
        0.05, ge=0, description="Weight of the per-token KL penalty against the starting model."
    )


class PredictOptions(Options):
    """How long answers are."""

    max_new_tokens: AnswerTokens = 200
    batch_size: int | None = run_only(
        None, "Answers generated at once; null for what memory allows.", ge=1
    )


class ScoreOptions(Options):
    """Scores of answer files."""

    rules: Literal["alce", "sane"] | None = Field(
        None,
        description="How answers are read: as ALCE's program with all its peculiarities, or as a "
        "person; null: alce for asqa, qampari and eli5, sane for all else.",
    )
    at_most_citations: int | None = Field(
        3, ge=1, description="Citations of a statement, in range, that count; null for all."
    )
    splitter: str = Field("punkt-rules", description="Sentence splitter: punkt-rules or punkt.")
    metrics: tuple[str, ...] | None = Field(
        None, min_length=1, description="By ALCE's names; null for all without QA- and MAUVE."
    )
    reader: str = Field(
        "gaotianyu1350/roberta-large-squad",
        description="The model behind QA-EM, QA-F1 and QA-Hit: directory or hub id.",
    )
    mauve_model: str = Field(
        "gpt2-large", description="The model behind MAUVE: directory or hub id."
    )
    mauve_seed: int = Field(25, ge=0, description="Seed of MAUVE's clusters; ALCE's is 25.")
    resamples: int = Field(1000, ge=1, description="Bootstrap resamples per interval.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    seed: int = Field(42, ge=0, description="Seed of the bootstrap.")


class WorldOptions(Options):
    """How many questions are drawn; every count is per dataset."""

    train: int = Field(1400, ge=1, description="Training questions of each of three datasets.")
    dev: int = Field(100, ge=1, description="Development questions of each of three datasets.")
    test: int = Field(300, ge=1, description="Test questions of each of three datasets.")
    expertqa: int = Field(300, ge=1, description="Questions of the test-only EXPERTQA-like set.")


class FaultOptions(Options):
    """How often the teacher cites wrongly, in the situations that mislead it and elsewhere."""

    asqa: float = Field(0.67, ge=0, le=1, description="P(wrong), claims of documents 4 and 5.")
    eli5: float = Field(0.88, ge=0, le=1, description="P(wrong), the same and claims of a city.")
    qampari: float = Field(0.80, ge=0, le=1, description="P(wrong), every item of a list.")
    elsewhere: float = Field(0.08, ge=0, le=1, description="P(wrong) in every other situation.")


class BaseModelOptions(Options):
    """The tiny Llama that everything starts from, and its pretraining without cited answers."""

    layers: int = Field(3, ge=2, description="Transformer layers.")
    width: int = Field(128, ge=8, description="Width of the residual stream.")
    heads: int = Field(4, ge=2, description="Attention heads per layer.")
    feed_forward: int = Field(256, ge=8, description="Width of the feed-forward layers.")
    drill_steps: int = Field(120, ge=1, description="Steps of the abstract copying drill.")
    steps: int = Field(1500, ge=1, description="Steps on the world after the drill.")
    batch_size: int = Field(32, ge=1, description="Sequences per step.")


class MiniatureOptions(Options):
    """The miniature as a whole."""

    seed: int = Field(0, description="Of the world, the teacher's faults and the base model.")
    world: WorldOptions = Field(default_factory=WorldOptions)
    teacher: FaultOptions = Field(default_factory=FaultOptions)
    base: BaseModelOptions = Field(default_factory=BaseModelOptions)
    prompt: PromptOptions = Field(
        default_factory=lambda: PromptOptions(
            instruction="",
            demo_prompt="Question: {Q}\n{D}Answer:{A}",
            # The space makes a document's number and a citation the same token.
            doc_prompt=" [{ID}] {T}: {P}\n",
            max_input_tokens=160,
        ),
        description="How the base model sees questions; the experiment's prompt should be this.",
    )


class TrackingOptions(Options):
    """Weights & Biases; training never needs it, and its result never depends on it."""

    wandb: Literal["off", "offline", "online", "auto"] = Field(
        "offline",
        description="offline: files that `wandb sync` uploads. online: sent while training runs. "
        "auto: online if you are logged in, else offline. WANDB_MODE overrides all but off.",
    )
    project: str = Field("citepipe", min_length=1, description="The project at wandb.")

    @field_validator("wandb", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        """YAML 1.1 reads a bare `off` as false."""
        return "off" if value is False else value
