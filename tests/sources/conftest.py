"""A web server, a cache of its own, and no waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from citepipe.options import SourcesOptions
from citepipe.sources.download import Downloader
from citepipe.sources.fetch import DriveBases, Fetcher
from tests.sources.web import Web, running


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in ("CITEPIPE_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that were made, none of them really."""
    return []


@pytest.fixture
def make(web: Web, tmp_path: Path, pauses: list[float]) -> Callable[..., Fetcher]:
    """Makes a fetcher, all with the same cache."""

    def made(**settings: object) -> Fetcher:
        values = {"cache": str(tmp_path / "cache"), "timeout": 0.5, "retries": 2, **settings}
        options = SourcesOptions.model_validate(values)
        downloader = Downloader(options, pauses.append)
        return Fetcher(options, downloader, DriveBases(web.url, web.url))

    return made
