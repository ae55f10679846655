"""The command `view`: the report as a page that this machine serves, of any size."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from citepipe.cli import ask, report, shared
from citepipe.errors import InputError


def add_view(commands: Any) -> None:
    """The command `view`."""
    option = shared.command(
        commands,
        "view",
        _view,
        "the report as a local page, of any size, that keeps your verdicts",
        "Serves the page of `citepipe report` with all answers, however many, until it is "
        "interrupted. Your verdicts on sentences go into a file, and nothing else is written. With "
        "documents the page has a field for questions, which are answered as by `citepipe ask`.",
        "view results --against dist",
        "view a.json b.json --labels labels.jsonl",
        "view results --docs notes --model results/models/fg_rl/seed0",
        "view results --host 0.0.0.0 --port 8765",
    ).add_argument
    report.add_scored(option)
    ask.add_asking(option)
    kept = "where your verdicts are kept, a JSON object per line" + shared.DEFAULT
    option("--labels", type=Path, default=Path("labels.jsonl"), metavar="FILE", help=kept)
    host = "the address to serve at; any but this machine's own needs the token that is printed"
    option("--host", default="127.0.0.1", help=host + shared.DEFAULT)
    ports = shared.number(int, "a port", lambda value: 0 <= value < 2**16)
    port = "0 for any that is free" + shared.DEFAULT
    option("--port", type=ports, default=8765, metavar="N", help=port)


def _view(arguments: argparse.Namespace) -> None:
    """Serve the page until interrupted."""
    import secrets
    import socket
    from tempfile import TemporaryDirectory

    import uvicorn

    from citepipe.ask import By
    from citepipe.options import RetrievalOptions
    from citepipe.report import page, serve
    from citepipe.retrieve import read_passages
    from citepipe.verify.load import check_spec

    check_spec(arguments.verifier)
    if arguments.docs:
        # Read again for each question; what is wrong with them is said before anybody asks.
        docs = [str(path) for path in arguments.docs]
        read_passages(RetrievalOptions(words=arguments.words, passages=docs))
    shared.check_writable(arguments.labels)
    labels = serve.Labels(arguments.labels)
    gathered = page.gather(**report.scored(arguments))
    with TemporaryDirectory() as folder:
        data = serve.write_data(gathered.content, Path(folder))
        is_here = arguments.host in serve.LOCAL
        token = None if is_here else secrets.token_urlsafe()
        by = By(arguments.model, arguments.server, arguments.key)
        html = gathered.html(ask=f"Answered by {by}." if arguments.docs else "")
        answer = partial(_answered, arguments) if arguments.docs else None
        app = serve.app(html, data, labels, token, answer)
        del gathered
        try:
            listening = socket.create_server((arguments.host, arguments.port))
        except OSError as error:
            where = f"{arguments.host}:{arguments.port}"
            raise InputError(f"{where}: cannot be served: {error.strerror}") from None
        behind = "" if token is None else f"?token={token}"
        port = listening.getsockname()[1]
        print(f"http://{arguments.host}:{port}/{behind} (verdicts: {arguments.labels})", flush=True)
        most = serve.CONNECTIONS
        options = uvicorn.Config(app, log_level="warning", limit_concurrency=most)
        uvicorn.Server(options).run(sockets=[listening])


def _answered(arguments: argparse.Namespace, question: str) -> str:
    """The page of one question, answered and judged."""
    from tempfile import TemporaryDirectory

    from citepipe.ask import questions
    from citepipe.options import ScoreOptions
    from citepipe.report import page
    from citepipe.scoring.results import Scored, results_of

    with TemporaryDirectory() as folder:
        out = Path(folder, "answer.json")
        result = ask.judged(arguments, questions([question], None), out)
        file = Scored(result["answered_by"], 0, out, results_of(result, out)[""])
        report = page.gather([file], [out], {}, "", ScoreOptions(resamples=1))
    return report.html(page.packed(report.content)[0])
