"""The command `merge`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from citepipe.cli import shared
from citepipe.errors import InputError


def add(commands: Any) -> None:
    """Add `merge` to the commands."""
    merge = commands.add_parser(
        "merge",
        help="an adapter and its base as one model",
        description="Adds a trained adapter to its base model and writes the whole model with its "
        "tokenizer and a model card that says how it was made.",
        **shared.examples(
            "merge results/models/fg_rl/seed0 my-model",
            "merge results/models/fg_rl/seed0 my-model --scores results/scores/fg_rl/seed0.json",
            "merge rl-fg.zip my-model --base meta-llama/Llama-2-7b-hf --dtype bfloat16",
        ),
    )
    option = merge.add_argument
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
    merge.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Write the model that an adapter and its base make."""
    import tempfile

    from citepipe.models.load import is_ready
    from citepipe.models.merge import dtype_of, export
    from citepipe.models.released import prepare
    from citepipe.options import ModelOptions

    with tempfile.TemporaryDirectory() as room:
        trained = arguments.trained
        if not trained.exists():
            raise InputError(f"{trained}: no such directory or archive")
        if not is_ready(trained):
            trained = Path(room) / "weights"
            prepare(arguments.trained, trained)
        base = arguments.base or _base_of(trained, arguments.trained)
        options = ModelOptions(
            base=base, revision=arguments.revision, dtype=arguments.dtype or "float32"
        )
        if arguments.dtype is None:
            options = options.model_copy(update={"dtype": dtype_of(options)})
        said = export(
            options,
            trained,
            arguments.out.resolve(),
            str(arguments.trained),
            arguments.scores,
            arguments.licence,
            _record(arguments.trained, arguments.configfile),
        )
    print(said, file=sys.stderr)


def _record(trained: Path, configfile: Path | None) -> dict[str, Any] | None:
    """What a configuration says of the system whose model lies at `models/SYSTEM/seedN`."""
    if configfile is None:
        return None
    import yaml

    from citepipe.config import load_config

    try:
        config = load_config(dict(yaml.safe_load(configfile.read_text(encoding="utf-8"))))
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{configfile}: expected a configuration: {said}") from None
    system, seed = trained.resolve().parts[-2:]
    if system not in config.systems or not seed.startswith("seed"):
        raise InputError(
            f"{trained}: expected the model of a system of {configfile}, such as "
            f"{config.results}/models/{next(iter(config.systems))}/seed{config.seeds[0]}"
        )
    row = config.systems[system].model_dump(mode="json", by_alias=True)
    made = {"system": system, "seed": int(seed.removeprefix("seed")), "row": row}
    if "train" in row:
        made["options"] = config.training_options(system).model_dump(mode="json")
        made["reward"] = config.reward.model_dump(mode="json")
        made["data"] = config.data and config.data.model_dump(mode="json")
    return made


def _base_of(trained: Path, given: Path) -> str:
    """The base that an adapter says it was trained on; a whole model is its own."""
    from citepipe.data.files import read_json

    path = trained / "adapter_config.json"
    if not path.is_file():
        return str(trained)
    config = read_json(path)
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(base, str) or not base:
        raise InputError(f"{given}: it names no base model; say --base")
    if not Path(base).exists() and (base.startswith((".", "/", "~")) or base.count("/") > 1):
        raise InputError(
            f"{given}: it was trained on {base!r}, which is not on this machine; say --base"
        )
    return base
