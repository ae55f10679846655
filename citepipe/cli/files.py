"""The commands that look after data and weights: `check`, `fetch` and `merge`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from citepipe.cli import shared
from citepipe.errors import InputError


def add_check(commands: Any) -> None:
    """The command `check`."""
    option = shared.command(
        commands,
        "check",
        _check,
        "what is wrong with a data file, and what would be done with it",
        "Looks at every row of files of questions or answers, says all that is wrong with it by "
        "row and field, and what the pipeline would do with it. Ends with 1 if the pipeline would "
        "refuse a file.",
        "check combined_train.json",
        "check questions.jsonl --own-as asqa --lines 20",
        "check asqa_eval_gtr_top100.json --json - | jq .uses",
    ).add_argument
    shared.add_inputs(option)
    rows = "of rows that nothing assigns; default: eli5"
    option("--own-as", default="eli5", metavar="NAME", help=rows)
    count: dict[str, Any] = {"type": shared.positive, "default": 5, "metavar": "N"}
    option("--documents", help="kept per question (data.documents); default: 5", **count)
    option("--lines", help="findings of a kind that get a line; default: 5", **count)
    shared.add_json(option)


def _check(arguments: argparse.Namespace) -> None:
    """Print a report on files; raises InputError if the pipeline would refuse one."""
    from citepipe.data.check import check

    shared.check_writable(arguments.json)
    settings = (arguments.dataset, arguments.documents, arguments.own_as, arguments.lines)
    paths = arguments.inputs
    reports = [check(path, *settings) for path in paths]
    written = dict(zip(shared.names_of(paths), (own.as_json() for own in reports), strict=True))
    lines = [line for own in reports for line in own.lines()]
    shared.publish(arguments.json, shared.together(written), lines)
    if bad := [own.file for own in reports if not own.is_usable]:
        raise InputError(f"{', '.join(bad)}: not usable as it is")


def add_fetch(commands: Any) -> None:
    """The command `fetch`."""
    option = shared.command(
        commands,
        "fetch",
        _fetch,
        "get data or weights from an address",
        "Gets what an address leads to into a folder: from the Hugging Face hub, Google Drive or "
        "the web, through a cache that all runs share. Archives are unpacked. A download that was "
        "cut off goes on where it was: from Drive and the web with --sha256.",
        "fetch hf://datasets/princeton-nlp/ALCE-data/ALCE-data.tar alce",
        'fetch "https://drive.google.com/drive/folders/ID#combined_train.json" data',
        "fetch https://host/adapter.zip adapter --sha256 0123...",
    ).add_argument
    addresses = "https://, hf:// or a Google Drive link; #PATH for a part"
    option("address", metavar="ADDRESS", help=addresses)
    option("out", type=Path, metavar="OUT", help="a new folder")
    option("--sha256", metavar="HEX", help="of the file, or of the archive")
    option("--cache", metavar="DIR", help="the cache; default: ~/.cache/citepipe/sources")
    option("--offline", action="store_true", help="from the cache only")


def _fetch(arguments: argparse.Namespace) -> None:
    """Fetch an address into a folder."""
    from pydantic import ValidationError

    from citepipe.options import SourcesOptions
    from citepipe.sources import fetch

    if arguments.out.exists():
        raise InputError(f"{arguments.out}: expected a new folder, it is there already")
    known = {arguments.address: arguments.sha256} if arguments.sha256 else {}
    try:
        options = SourcesOptions(cache=arguments.cache, offline=arguments.offline, sha256=known)
    except ValidationError as error:
        line = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--sha256: {line}") from None
    print(fetch(arguments.address, arguments.out, options), file=sys.stderr)


def add_merge(commands: Any) -> None:
    """The command `merge`."""
    option = shared.command(
        commands,
        "merge",
        _merge,
        "an adapter and its base as one model",
        "Adds a trained adapter to its base model and writes the whole model with its tokenizer "
        "and a model card that says how it was made.",
        "merge results/models/fg_rl/seed0 my-model",
        "merge results/models/fg_rl/seed0 my-model --scores results/scores/fg_rl/seed0.json",
        "merge rl-fg.zip my-model --base meta-llama/Llama-2-7b-hf --dtype bfloat16",
    ).add_argument
    trained = "a PEFT adapter: a directory, or an archive"
    option("trained", type=Path, metavar="ADAPTER", help=trained)
    option("out", type=Path, metavar="OUT", help="a new directory for the model")
    option("--base", metavar="MODEL", help="directory or hub id; default: what the adapter names")
    option("--revision", metavar="REV", help="of a base at the hub")
    dtypes = ("float32", "bfloat16", "float16")
    option("--dtype", choices=dtypes, help="precision of what is written; default: the base's")
    option("--scores", type=Path, metavar="FILE", help="a score file, for the card")
    configuration = "the configuration that it was trained with, for the card"
    option("--configfile", type=Path, metavar="FILE", help=configuration)
    option("--licence", metavar="ID", help="an identifier for the card, such as mit")


def _merge(arguments: argparse.Namespace) -> None:
    """Write the model that an adapter and its base make."""
    import tempfile

    from citepipe.models.load import is_ready, trained_with
    from citepipe.models.merge import dtype_of, export
    from citepipe.models.released import prepare
    from citepipe.options import ModelOptions

    trained, configfile = arguments.trained, arguments.configfile
    with tempfile.TemporaryDirectory() as room:
        if not trained.exists():
            raise InputError(f"{trained}: no such directory or archive")
        if not is_ready(trained):
            trained = Path(room) / "weights"
            prepare(arguments.trained, trained)
        options = ModelOptions(base=arguments.base or "", revision=arguments.revision)
        if arguments.base is None:
            known, _ = trained_with(trained, arguments.trained)
            named = {"base": known.base, "revision": arguments.revision or known.revision}
            options = ModelOptions(**named)
        dtype = arguments.dtype or dtype_of(options)
        line = export(
            options.model_copy(update={"dtype": dtype}),
            trained,
            arguments.out.resolve(),
            str(arguments.trained),
            arguments.scores,
            arguments.licence,
            configfile and _record(arguments.trained, configfile),
        )
    print(line, file=sys.stderr)


def _record(trained: Path, configfile: Path) -> dict[str, Any]:
    """What a configuration says of the system whose model lies at `models/SYSTEM/seedN`."""
    import yaml

    from citepipe.config import load_config
    from citepipe.data.files import read_text

    try:
        config = load_config(dict(yaml.safe_load(read_text(configfile))))
    except (TypeError, ValueError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{configfile}: expected a configuration: {line}") from None
    name, seed = trained.resolve().parts[-2:]
    if name not in config.systems or not seed.startswith("seed"):
        raise InputError(
            f"{trained}: expected the model of a system of {configfile}, "
            f"{config.results}/models/SYSTEM/seedN"
        )
    row = config.systems[name].model_dump(mode="json", by_alias=True)
    made = {"system": name, "seed": int(seed.removeprefix("seed")), "row": row}
    if "train" in row:
        used = {"options": config.training_options(name), "reward": config.reward}
        sections = {**used, "data": config.data}.items()
        made |= {key: section and section.model_dump(mode="json") for key, section in sections}
    return made
