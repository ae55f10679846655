"""The command `fetch`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from citepipe.cli import shared
from citepipe.errors import InputError


def add(commands: Any) -> None:
    """Add `fetch` to the commands."""
    fetch = commands.add_parser(
        "fetch",
        help="get data or weights from an address",
        description="Gets what an address leads to into a folder: from the Hugging Face hub, "
        "Google Drive or the web, through a cache that all runs share. Archives are unpacked. A "
        "download that was cut off goes on where it was: from Drive and the web with --sha256.",
        **shared.examples(
            "fetch hf://datasets/princeton-nlp/ALCE-data/ALCE-data.tar alce",
            'fetch "https://drive.google.com/drive/folders/ID#combined_train.json" data',
            "fetch https://host/adapter.zip adapter --sha256 0123...",
        ),
    )
    option = fetch.add_argument
    addresses = "https://, hf:// or a Google Drive link; #PATH for a part"
    option("address", metavar="ADDRESS", help=addresses)
    option("out", type=Path, metavar="OUT", help="a new folder")
    option("--sha256", metavar="HEX", help="of the file, or of the archive")
    option("--cache", metavar="DIR", help="the cache; default: ~/.cache/citepipe/sources")
    option("--offline", action="store_true", help="from the cache only")
    fetch.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
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
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--sha256: {said}") from None
    print(fetch(arguments.address, arguments.out, options), file=sys.stderr)
