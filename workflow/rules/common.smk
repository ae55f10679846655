"""The configuration, where results lie, and the files that each stage depends on."""

import fcntl
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

ROOT = Path(workflow.basedir)
# The package and the helper beside this workflow, whatever else is installed.
sys.path[:0] = [str(ROOT), str(ROOT / "workflow")]

from citepipe.config import (
    AdapterSystem,
    DPOSystem,
    ModelOfSystem,
    OutputsSystem,
    RLSystem,
    Sampled,
    SamplesOf,
    SFTSystem,
    load_config,
)
from citepipe.data.prompts import check_prompt
from citepipe.errors import InputError
from citepipe.inputs import localise, named_inputs
from citepipe.models.load import is_ready
from closure import Closure

try:
    CONFIG, SOURCES = localise(load_config(config))
except InputError as error:
    raise WorkflowError(f"Configuration: {error}")

RESULTS = CONFIG.results
WORLD = f"{RESULTS}/miniature/world"
MINIATURE_BASE = f"{RESULTS}/miniature/base"
DATA = f"{RESULTS}/data"
TEACHER = f"{RESULTS}/teacher"
SOURCE = f"{RESULTS}/sources/{{source}}"
WEIGHTS = f"{RESULTS}/weights/{{system}}"
SAMPLES = f"{RESULTS}/samples/{{system}}/seed{{seed}}"
SHARD = f"{SAMPLES}/shards/{{scatteritem}}.jsonl"
MODEL = f"{RESULTS}/models/{{system}}/seed{{seed}}"
PREDICTIONS = f"{RESULTS}/predictions/{{system}}/seed{{seed}}"
SCORES = f"{RESULTS}/scores/{{system}}/seed{{seed}}.json"
LOGS = f"{RESULTS}/logs"
CACHE = f"{RESULTS}/cache/verifier.sqlite"

# Jobs end when the process of their run does (see scripts/stage.py).
os.environ.update(CITEPIPE_RUN=str(os.getpid()))

SYSTEMS = CONFIG.systems
TESTS = list(CONFIG.data.test) if CONFIG.data else []
TRAIN_VERIFIER = CONFIG.verifiers.train
RL_VERIFIER = CONFIG.verifiers.rl or TRAIN_VERIFIER

CLOSURE = Closure(ROOT, "citepipe")


scattergather:
    shards=CONFIG.shards,


wildcard_constraints:
    system="[A-Za-z0-9_-]+",
    seed=r"\d+",


def hold_lock():
    """Keep other runs out of the same results, for as long as this process lives.

    The lock that Snakemake itself writes stays behind when a run is killed; the profiles switch it
    off. This one is the system's, which lets go of it with the process.
    """
    Path(RESULTS).mkdir(parents=True, exist_ok=True)
    lock = Path(RESULTS, ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise WorkflowError(
            f"{RESULTS}: another run is writing there; wait for it to end"
        )
    globals()["held_lock"] = lock


onstart:
    hold_lock()


def one_of(names):
    """A wildcard constraint that admits these names only; without names it admits nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


def systems_of(kind):
    return [name for name, system in SYSTEMS.items() if isinstance(system, kind)]


def systems_training_by(*methods):
    return [
        name for name in SYSTEMS if getattr(SYSTEMS[name], "train", None) in methods
    ]


def samples(name):
    """Whether a system is trained on samples that are drawn for it."""
    return isinstance(getattr(SYSTEMS[name], "data", None), Sampled)


def systems_sampling_by(method):
    return [
        name
        for name in SYSTEMS
        if samples(name) and SYSTEMS[name].data.sample == method
    ]


def systems_decoding_by(*ways):
    """The systems with a model whose test questions are answered in one of these ways."""
    return [name for name in SYSTEMS if getattr(SYSTEMS[name], "decode", None) in ways]


def seeds_of(name):
    """The seeds that a system runs with.

    What was trained elsewhere does not vary with ours, nor do its likeliest answers.
    """
    if isinstance(SYSTEMS[name], ModelOfSystem) and SYSTEMS[name].decode == "greedy":
        return seeds_of(SYSTEMS[name].model_of)
    drawn = getattr(SYSTEMS[name], "decode", None) == "segment_search"
    if isinstance(SYSTEMS[name], (AdapterSystem, OutputsSystem)) and not drawn:
        return CONFIG.seeds[:1]
    return CONFIG.seeds


def options(section, *without):
    """A section of the configuration as plain values in a fixed order, fit to be a parameter.

    Args:
        section: the section.
        without: keys that the results do not depend on.
    """
    values = section.model_dump(mode="json", by_alias=True)
    return {key: value for key, value in values.items() if key not in without}


def shown(path):
    """A path as Snakemake should list it: relative where that is possible."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else str(path)


def code(*scripts):
    """Scripts and the files of the package that they run on: a change to them is a new input."""
    paths = [ROOT / "workflow" / "scripts" / script for script in scripts]
    package = {file for path in paths for file in CLOSURE.of_script(path)}
    return [shown(file) for file in [*paths, *sorted(package)]]


def is_input(file, folder):
    """Whether a file of a folder counts: hidden ones (`.git`, `.DS_Store`) do not."""
    parts = file.relative_to(folder).parts
    return file.is_file() and not any(part.startswith(".") for part in parts)


def files(path):
    """What to depend on for a file or folder that the configuration names, or a hub name."""
    for folder in SOURCES:
        if Path(path).is_relative_to(folder):
            return [folder]
    if Path(path).is_relative_to(RESULTS):
        return [path]
    if Path(path).is_dir():
        return sorted(
            str(file) for file in Path(path).rglob("*") if is_input(file, path)
        )
    return [path] if Path(path).is_file() else []


def given(paths):
    """What to depend on for files that the configuration names; they must be there."""
    return list(dict.fromkeys(file for path in paths for file in files(path) or [path]))


def data_files():
    """The files with questions."""
    if CONFIG.data is None:
        return []
    return given([*CONFIG.data.train, *CONFIG.data.dev, *CONFIG.data.test.values()])


DATA_FILES = data_files()


def verifier_files(*specs):
    """A verifier's own files: its model's folder, or its module and the path that it reads."""
    found = []
    for spec in specs:
        target, _, argument = spec.partition("?")
        if ":" in target:
            found += map(shown, CLOSURE.of_module(target.partition(":")[0]))
            found += files(argument) if argument else []
        else:
            found += files(target)
    return found


def is_model(spec):
    """Whether a verifier is a neural one, which wants a GPU."""
    return spec != "lexical" and ":" not in spec.partition("?")[0]


# A server has GPUs of its own; a verifier that is a model wants one here.
GENERATOR_GPUS = int(CONFIG.server is None)
SEARCH_GPUS = int(CONFIG.server is None or is_model(TRAIN_VERIFIER))


def model_path(name, seed):
    """The adapter of a system: trained here, or somebody's."""
    system = SYSTEMS[name]
    if isinstance(system, AdapterSystem):
        ready = system.adapter is not None and is_ready(Path(system.adapter))
        return system.adapter if ready else WEIGHTS.format(system=name)
    if isinstance(system, ModelOfSystem):
        return model_path(system.model_of, seed)
    return MODEL.format(system=name, seed=seed)


def start_of(wildcards):
    """The adapter that a system's training goes on from, if any."""
    start = SYSTEMS[wildcards.system].start
    return model_path(start, wildcards.seed) if start else None


def start_files(wildcards):
    start = start_of(wildcards)
    return files(start) if start else []


def base_files(wildcards):
    """The base model's own files, and those by which it is asked."""
    return [*files(CONFIG.model.base), *given(CONFIG.prompt.files.values())]


def is_local(base):
    """Whether a model's name must be a folder here, since no hub name looks like it."""
    parts = Path(base).parts
    return len(parts) != 2 or base.startswith((".", "/")) or Path(parts[0]).is_dir()


def absent_files():
    """What the configuration names that is neither there nor made by a rule, by its key."""
    named = named_inputs(CONFIG)
    if CONFIG.model and not is_local(CONFIG.model.base):
        del named["model.base"]
    absent = {}
    for key, paths in named.items():
        for path in paths:
            if not Path(path).is_relative_to(RESULTS) and not Path(path).exists():
                absent.setdefault(path, key)
    return absent


def source_params(wildcards):
    """What is fetched into a folder; where it is kept and how patiently is no matter."""
    source = SOURCES[SOURCE.format(**wildcards)]
    return {
        "address": source.address,
        "members": sorted(source.members),
        "sha256": source.sha256,
    }


def data_params():
    if CONFIG.data is None:
        return None
    retrieval = CONFIG.retrieval and options(CONFIG.retrieval)
    return {"data": options(CONFIG.data), "retrieval": retrieval}


def world_params():
    """The base model's options are left out: other ones leave the world as it is."""
    if CONFIG.miniature is None:
        return None
    return {
        name: value
        for name, value in options(CONFIG.miniature).items()
        if name != "base"
    }


TAUGHT = any(getattr(SYSTEMS[name], "data", None) == "teacher" for name in SYSTEMS)
ASKED = CONFIG.teacher.citations == "endpoint"

# What the teacher's answers depend on at an endpoint: not where it is, nor what it costs.
ENDPOINT = ("model", "system", "temperature", "max_tokens", "tokens_key")


def teach_params():
    """What the teacher's answers depend on."""
    teacher = options(CONFIG.teacher)
    judged = (
        CONFIG.teacher.citations == "attribute" or teacher["min_reward"] is not None
    )
    if ASKED and CONFIG.teacher.endpoint is not None:
        teacher["endpoint"] = {key: teacher["endpoint"][key] for key in ENDPOINT}
    else:
        del teacher["endpoint"], teacher["prompt"]
    return {
        "teacher": teacher,
        "verifier": TRAIN_VERIFIER if judged else None,
        "reward": options(CONFIG.reward) if judged else None,
        "cache": CACHE,
        "journal": f"{RESULTS}/cache/teacher.jsonl",
    }


def sft_answers(wildcards):
    """What a system is trained on."""
    if SYSTEMS[wildcards.system].data == "teacher":
        return rules.teach.output.train
    return f"{SAMPLES}/answers.json".format(**wildcards)


def sft_params(wildcards):
    return {
        "model": options(CONFIG.model),
        "prompt": options(CONFIG.prompt),
        "sft": options(CONFIG.training_options(wildcards.system)),
        "start": start_of(wildcards),
    }


def sampled_from(wildcards):
    return model_path(SYSTEMS[wildcards.system].data.from_, wildcards.seed)


def sampled_from_files(wildcards):
    return files(sampled_from(wildcards))


def sample_params(wildcards):
    method = SYSTEMS[wildcards.system].data.sample
    return {
        "model": options(CONFIG.model),
        "prompt": options(CONFIG.prompt),
        "sample": options(getattr(CONFIG, method), "batch_size"),
        "reward": options(CONFIG.reward),
        "verifier": TRAIN_VERIFIER,
        "cache": CACHE,
        "adapter": sampled_from(wildcards),
        "server": served(),
    }


def merge_params(wildcards):
    """Which questions were asked."""
    method = SYSTEMS[wildcards.system].data.sample
    return {"questions": getattr(CONFIG, method).questions}


def served():
    """What results depend on where a server answers.

    Where it is and how patiently it is asked is not among it: that may change from run to run, as
    the size of a batch may (see `of_this_run` in scripts/stage.py).
    """
    return None if CONFIG.server is None else {"model": CONFIG.server.model}


def candidates(wildcards):
    """All sampled answers that a system is trained on."""
    data = SYSTEMS[wildcards.system].data
    owner = data.samples_of if isinstance(data, SamplesOf) else wildcards.system
    return f"{SAMPLES}/candidates.jsonl".format(system=owner, seed=wildcards.seed)


def dpo_params(wildcards):
    return {
        "model": options(CONFIG.model),
        "prompt": options(CONFIG.prompt),
        "dpo": options(CONFIG.training_options(wildcards.system)),
        "start": start_of(wildcards),
    }


def rl_params(wildcards):
    system = SYSTEMS[wildcards.system]
    return {
        "model": options(CONFIG.model),
        "prompt": options(CONFIG.prompt),
        "method": system.train,
        "options": options(CONFIG.training_options(wildcards.system)),
        "reward": options(CONFIG.reward),
        "placement": system.reward,
        "verifier": RL_VERIFIER,
        "cache": CACHE,
        "start": start_of(wildcards),
    }


def weights_given(wildcards):
    adapter = SYSTEMS[wildcards.system].adapter
    return base_files(wildcards) if adapter is None else given([adapter])


def weights_params(wildcards):
    """What is made loadable; for the base as it is, an adapter that adds nothing."""
    adapter = SYSTEMS[wildcards.system].adapter
    return {
        "adapter": adapter,
        "model": options(CONFIG.model) if adapter is None else None,
    }


def predict_params(wildcards):
    return {
        "model": options(CONFIG.model),
        "prompt": options(CONFIG.prompt),
        "predict": options(CONFIG.predict, "batch_size"),
        "adapter": model_path(wildcards.system, wildcards.seed),
        "datasets": TESTS,
        "server": served(),
    }


def search_params(wildcards):
    """What prediction by search is told beside."""
    unused = ("questions", "max_new_tokens", "batch_size")
    return {
        "search": options(CONFIG.segment_search, *unused),
        "reward": options(CONFIG.reward, "correctness", "expected_list_items"),
        "verifier": TRAIN_VERIFIER,
        "cache": CACHE,
    }


def predict_adapter_files(wildcards):
    return files(model_path(wildcards.system, wildcards.seed))


def answers_of(name):
    """The files with a system's answers, by dataset: predicted here, or somebody's."""
    system = SYSTEMS[name]
    if isinstance(system, OutputsSystem):
        return dict(system.outputs)
    return {dataset: f"{PREDICTIONS}/{dataset}.json" for dataset in TESTS}


def products():
    """Everything that the run makes on the way to the scores.

    The table asks for all of it, see `withdraw`.
    """
    wanted = []
    for name, system in SYSTEMS.items():
        of_system = (
            [] if isinstance(system, OutputsSystem) else list(answers_of(name).values())
        )
        if isinstance(system, (SFTSystem, RLSystem, DPOSystem)):
            of_system.append(MODEL)
        if samples(name):
            of_system += gather.shards(SHARD, allow_missing=True)
            of_system.append(f"{SAMPLES}/answers.json")
        for seed in seeds_of(name):
            wanted += [path.format(system=name, seed=seed) for path in of_system]
    if TESTS:
        wanted += [*rules.data.output, *DATA_FILES]
    if TAUGHT:
        wanted += rules.teach.output
    if CONFIG.model:
        wanted += files(CONFIG.model.base)
    return [path for path in wanted if Path(path).is_relative_to(RESULTS)]


def withdraw(table):
    """Take away a table that is there although something that led to it is not.

    Snakemake removes the output of a job before the job starts, and does not miss it as long as
    what was once made from it is there. After a job that failed or was killed, the old table would
    pass for a current one; without it, and since it asks for all products, they are made again.

    Returns:
        in a dry run, which leaves the table where it is, the absent products: as a parameter of
        the table they make it stale. Otherwise nothing.
    """
    absent = [path for path in products() if not Path(path).exists()]
    if not absent or not Path(table).exists() or not workflow.is_main_process:
        return []
    if workflow.output_settings.dryrun:
        return absent
    Path(table).unlink()
    return []


def score_inputs(wildcards):
    return given(answer_paths(wildcards).values())


def answer_paths(wildcards):
    return {
        dataset: path.format(**wildcards)
        for dataset, path in answers_of(wildcards.system).items()
    }


def score_params(wildcards):
    return {
        "verifiers": CONFIG.verifiers.report,
        "cache": CACHE,
        "score": options(CONFIG.score),
        "answers": answer_paths(wildcards),
    }


ABSENT = absent_files()
for path, key in ABSENT.items():
    message = (
        f"{key}: no file {path} below {Path.cwd()} "
        "(the configuration file says where its inputs come from)"
    )
    if not workflow.output_settings.dryrun:
        raise WorkflowError(f"Configuration: {message}")
    logger.warning(f"Before a run: {message}")

# What is already there of prompt files is read before anything is run.
if all(Path(path).exists() for path in CONFIG.prompt.files.values()):
    try:
        check_prompt(CONFIG.prompt, TESTS)
    except InputError as error:
        raise WorkflowError(f"Configuration: {error}")
