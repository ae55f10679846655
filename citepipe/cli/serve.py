"""The command `serve-rewards`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from citepipe.cli import shared
from citepipe.errors import InputError

_WAITING = 64
"""Requests that are answered or wait; more are refused with 503."""


def add_serve(commands: Any) -> None:
    """The command `serve-rewards`."""
    option = shared.command(
        commands,
        "serve-rewards",
        _serve,
        "citation rewards over HTTP, for other trainers",
        "Answers POST /rewards on this machine's own address with the rewards of the rows that it "
        "is sent (docs/trainers.md). Needs pip install 'citepipe[serve]'.",
        "serve-rewards --verifier lexical --port 8077",
        "serve-rewards --verifier MODEL --citation-recall 1 --correctness 0",
    ).add_argument
    shared.add_verifier(option)
    option("--dataset", metavar="NAME", help=shared.DATASET_HELP)
    shared.add_rewards(option)
    shared.add_models(option)
    option(
        "--port", type=shared.natural, default=8077, metavar="N", help="0 for any" + shared.DEFAULT
    )
    size = "largest body of a request (MB)" + shared.DEFAULT
    option("--most-megabytes", type=shared.positive, default=16, metavar="N", help=size)


def _serve(arguments: argparse.Namespace) -> None:
    """Serve rewards until interrupted."""
    import socket

    import uvicorn

    from citepipe.options import RewardOptions
    from citepipe.trainers import CitationReward, rewards_app
    from citepipe.verify.load import check_spec

    check_spec(arguments.verifier)
    try:
        listening = socket.create_server(("127.0.0.1", arguments.port))
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {arguments.port}: {error}") from None
    given = shared.given(arguments, RewardOptions)
    reward = CitationReward(shared.verifier_of(arguments), dataset=arguments.dataset, **given)
    app = rewards_app(reward, arguments.most_megabytes * 2**20)
    print(f"POST http://127.0.0.1:{listening.getsockname()[1]}/rewards", file=sys.stderr)
    config = uvicorn.Config(app, log_level="warning", limit_concurrency=_WAITING)
    uvicorn.Server(config).run(sockets=[listening])
