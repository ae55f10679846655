"""The configuration, where results lie, and what rules share."""

import math
import os
import re
import subprocess
import sys
import time
from functools import cache
from itertools import chain
from pathlib import Path
from urllib.parse import parse_qsl

from filelock import FileLock, Timeout
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

ROOT = Path(workflow.current_basedir).parents[1]
# The package and the helper beside this workflow, whatever else is installed.
sys.path[:0] = [str(ROOT), str(ROOT / "workflow")]

from citepipe import config as kinds
from citepipe.data.prompts import check_prompt
from citepipe.errors import InputError
from citepipe.inputs import absent_inputs, localise
from citepipe.models.load import is_ready
from citepipe.options import resolved
from citepipe.provenance import digest_of_path
from citepipe.verify.load import check_spec, levels
from demand import ALONE, Ask, Demand
from staleness import NEWER, OWN_CODE, Stages, Wildcards

if re.search(r"\s", sys.executable):
    raise WorkflowError(
        f"{sys.executable}: Snakemake runs scripts with a Python whose path has no spaces; make "
        "the environment elsewhere"
    )
for path in (ROOT, Path.cwd()):
    if set("{}") & set(str(path)):
        raise WorkflowError(f"{path}: expected a folder whose name has no braces")
# Scripts get the same.
config.update(kinds.with_types(config, workflow.config_settings.config))
try:
    CONFIG, SOURCES = localise(kinds.load_config(config))
    # What is already there of prompt files is read before anything is run.
    for name in CONFIG.systems:
        if all(Path(path).exists() for path in CONFIG.prompt_of(name).files.values()):
            check_prompt(CONFIG.prompt_of(name), list(CONFIG.data.test) if CONFIG.data else [])
    VERIFIERS = {CONFIG.verifiers.train, *CONFIG.verifiers.report.values()}
    VERIFIERS |= {CONFIG.verifiers.rl} - {None}
    for spec in sorted(VERIFIERS):
        check_spec(spec)
except InputError as error:
    raise WorkflowError(f"Configuration: {error}")

RESULTS = CONFIG.results
# One run at a time writes there. Unlike Snakemake's own lock the system lets go of it however a run
# ends; a cluster's profile has Snakemake's too, as jobs there outlive a run that is killed.
RUN = FileLock(Path(RESULTS, ".lock").resolve(), is_singleton=True)
# What follows from a job that is forced to run runs too, as Snakemake has it.
STAGES = Stages(RESULTS, forced=lambda: workflow.dag_settings and workflow.dag_settings.forcerun)
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

if workflow.is_main_process:
    NEWER.parent.mkdir(exist_ok=True)
    NEWER.write_text(str(time.time_ns()))
# Jobs end when the process of their run does (see scripts/stage.py).
os.environ.update(CITEPIPE_RUN=str(os.getpid()))
if workflow.remote_exec:
    # A scheduler counts the time of a job, which stops by itself before that is over; how much of a
    # group's is left for one of its jobs nobody knows.
    begun = "" if "--local-groupid" in sys.argv else str(time.time())
    os.environ.setdefault("CITEPIPE_BEGUN", begun)
if Path(workflow.main_snakefile).resolve() == ROOT / "Snakefile":
    # A signal that asks a whole group of processes to end is for scripts, which save first. As a
    # module of another workflow this one leaves the shell as it is.
    shell.prefix("trap '' TERM; ")

SYSTEMS = CONFIG.systems
TRAIN_VERIFIER = CONFIG.verifiers.train


scattergather:
    shards=CONFIG.shards,


wildcard_constraints:
    system="[A-Za-z0-9_-]+",
    seed=r"\d+",


DEMAND = Demand(CONFIG, {folder: source.address for folder, source in SOURCES.items()})


def needs(ask, gpu=0):
    """A rule's resources, by its Ask or a function of its wildcards: time for half an hour and twice
    what is expected; with each attempt a quarter more memory and half more time, three days at most.
    """
    of = lambda wildcards: ask(wildcards) if callable(ask) else ask
    return {
        "mem_mb": lambda wildcards, attempt: math.ceil(250 * of(wildcards).gb * (3 + attempt)),
        "runtime": lambda wildcards, attempt: min(
            3 * 24 * 60, math.ceil((15 + 60 * of(wildcards).hours) * (1 + attempt))
        ),
        "gpu": gpu,
        # What is expected: for `citepipe plan`, and for a scheduler that counts such things.
        "seconds": lambda wildcards: math.ceil(3600 * of(wildcards).hours),
        "gpu_mb": lambda wildcards: math.ceil(1000 * of(wildcards).gpu_gb),
        "disk_mb": lambda wildcards: math.ceil(1000 * of(wildcards).disk),
    }


def shown(file, of, caption, category):
    """A result that has a place in Snakemake's report."""
    caption = f"../report/{caption}.rst"
    return report(f"{RESULTS}/{file}", caption=caption, category=category, labels={"file": of})


def one_of(names):
    """A wildcard constraint that admits these names only; without names it admits nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


def system(wildcards):
    return SYSTEMS[wildcards.system]


def systems_of(*types):
    return [name for name in SYSTEMS if isinstance(SYSTEMS[name], types)]


# The systems that are trained, that are trained on samples of their own, and that answer here.
TRAINED = systems_of(kinds.SFTSystem, kinds.RLSystem, kinds.DPOSystem)
SAMPLED = [
    name for name in TRAINED if isinstance(getattr(SYSTEMS[name], "data", None), kinds.Sampled)
]
# Those that are trained on samples of another one's training, chosen anew.
CHOSEN = [
    name for name in TRAINED if isinstance(getattr(SYSTEMS[name], "data", None), kinds.ChosenOf)
]
ANSWERING = [name for name in SYSTEMS if name not in systems_of(kinds.OutputsSystem)]
TAUGHT = any(getattr(SYSTEMS[name], "data", None) == "teacher" for name in TRAINED)


def sampler_of(wildcards):
    """The system whose training draws the samples that a system is trained on."""
    return getattr(system(wildcards).data, "samples_of", wildcards.system)


def choice_cfg(wildcards):
    """The questions, and which of them are learnt from: where answers are compared, all."""
    own = system(wildcards).data
    options = getattr(CONFIG, SYSTEMS[sampler_of(wildcards)].data.sample)
    least = options.min_reward if wildcards.system in systems_of(kinds.SFTSystem) else None
    return {"questions": options.questions, "min_reward": getattr(own, "min_reward", least)}


def sample_parts(wildcards):
    """The shards of a system's samples, or another system's, put together before."""
    if wildcards.system in CHOSEN:
        return [
            f"{SAMPLES}/candidates.jsonl".format(system=sampler_of(wildcards), seed=wildcards.seed)
        ]
    return [p.format(**wildcards) for p in gather.shards(SHARD, allow_missing=True)]


def of_all_runs(names, *paths):
    """Paths with `{system}` and `{seed}`, for the named systems and all of their seeds."""
    return [
        path.format(system=name, seed=seed)
        for name in names
        for seed in CONFIG.seeds_of(name)
        for path in paths
    ]


@cache
def files(*paths):
    """What to depend on for files and folders that the configuration names; not for hub names."""
    found = []
    for path in filter(None, paths):
        source = [folder for folder in SOURCES if Path(path).is_relative_to(folder)]
        if source or Path(path).is_relative_to(RESULTS):
            found += source or [path]
        elif Path(path).exists():
            found.append(path)
    return list(dict.fromkeys(found))


def is_gguf(wildcards):
    """Whether a source is a base model in GGUF, of which a model directory is made."""
    return bool(CONFIG.model) and CONFIG.model.base == SOURCE.format(**wildcards)


def verifier_files(*specs):
    """A verifier's own files: its model's folder and template, or its module and what it reads."""
    found = []
    for spec in chain.from_iterable(map(levels, specs)):
        target, _, argument = spec.partition("?")
        name, colon, _ = target.partition(":")
        template = dict(parse_qsl(argument)).get("template")
        is_module = colon and name != "server"
        found += [OWN_CODE + name, *files(argument)] if is_module else files(target, template)
    return found


def is_users(spec):
    """Whether a verifier is a module, and not this package's."""
    target = spec.partition("?")[0]
    return ":" in target and not target.startswith(("citepipe.", "server:"))


def is_model(spec):
    """Whether a verifier is a neural one, which wants a GPU."""
    return any(own != "lexical" and ":" not in own.partition("?")[0] for own in levels(spec))


# A server has GPUs of its own unless a job starts it; a verifier that is a model wants one here.
SERVED = CONFIG.server is not None and CONFIG.server.start is None
SEARCH_GPUS = int(not SERVED or is_model(TRAIN_VERIFIER))


def model_path(name, seed):
    """The adapter of a system: trained here, or somebody's."""
    own = SYSTEMS[name]
    if isinstance(own, kinds.AdapterSystem):
        ready = own.adapter is not None and is_ready(Path(own.adapter))
        return own.adapter if ready else WEIGHTS.format(system=name)
    if isinstance(own, kinds.ModelOfSystem):
        return model_path(own.model_of, seed)
    return MODEL.format(system=name, seed=seed)


def answers_by(name, seed):
    """The adapter or model that a system answers with; None for the base as it is."""
    own = SYSTEMS[name]
    if isinstance(own, kinds.ModelOfSystem):
        return answers_by(own.model_of, seed)
    return None if getattr(own, "adapter", "") is None else model_path(name, seed)


def start_of(wildcards):
    """The adapter or model that a system's training goes on from, if any."""
    start = system(wildcards).start
    return model_path(start, wildcards.seed) if start else None


def base_files(wildcards, name=None):
    """The base model's own files, and those of its prompts (the named system's)."""
    prompt = CONFIG.prompt_of(name or wildcards.system)
    return files(CONFIG.model.base, *prompt.files.values())


def model_cfg(name):
    """The base model and a system's prompt, which all that it generates depends on."""
    return {"model": resolved(CONFIG.model), "prompt": resolved(CONFIG.prompt_of(name))}


def generating_cfg(name):
    return {**model_cfg(name), "server": CONFIG.server and resolved(CONFIG.server)}


def sampling_options(method):
    """What answers are sampled by, without what only the choice among them depends on."""
    options = resolved(getattr(CONFIG, method))
    del options["min_reward"]
    return options


def training_cfg(wildcards):
    options = resolved(CONFIG.training_options(wildcards.system))
    return {**model_cfg(wildcards.system), "options": options, "start": start_of(wildcards)}


# Who only looks at a run is warned; a run ends before its first job.
ABSENT = absent_inputs(CONFIG)
USERS_VERIFIERS = sorted(filter(is_users, chain.from_iterable(map(levels, VERIFIERS))))
for line in ABSENT:
    logger.warning(f"Configuration: {line}")


onstart:
    for line in ABSENT:
        raise WorkflowError(f"Configuration: {line}")
    try:
        Path(RESULTS).mkdir(parents=True, exist_ok=True)
        RUN.acquire(blocking=False)
    except Timeout:
        raise WorkflowError(f"{RESULTS}: another run writes there; wait until it ends")
    except OSError as error:
        raise WorkflowError(f"{error.filename or RESULTS} cannot be written: {error.strerror}")
    # A process of its own may load a model and be gone.
    tried = USERS_VERIFIERS and subprocess.run(
        [sys.executable, "-m", "citepipe.verify.load", *USERS_VERIFIERS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))},
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in tried.stderr.splitlines() if tried else ():
        logger.warning(line)
    if tried and tried.returncode:
        line = (tried.stderr.strip().splitlines() or [f"status {tried.returncode}"])[-1]
        raise WorkflowError(f"Configuration: {line}")
