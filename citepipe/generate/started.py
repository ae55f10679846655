"""A vLLM server that a job starts for itself, on the GPUs that it has, and stops."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from citepipe.errors import InputError
from citepipe.progress import say

PATIENCE = 1800.0
"""Seconds that a server has to load its model."""
_open = build_opener(ProxyHandler({})).open
_libc = ctypes.CDLL(None)


class StartedServer:
    """What it prints goes to the job's own log.

    Args:
        model: a folder or a name on the hub.
        arguments: further ones of `vllm serve`.

    Attributes:
        url: where its API begins.

    Raises:
        InputError: there is no vLLM, or the server ended or was not ready in time.
    """

    def __init__(self, model: str, arguments: Sequence[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = ["vllm", "serve", model, "--enable-lora", "--max-lora-rank", "64"]
        command += ["--generation-config", "vllm", "--host", "127.0.0.1", "--port", str(port)]
        self.url = f"http://127.0.0.1:{port}/v1"
        try:
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=2,
                env=os.environ | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
                preexec_fn=_end_with_parent,
            )
        except OSError as error:
            raise InputError(f"server.start: vllm: {error.strerror}; see envs/vllm.yaml") from None
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        say(f"{self.url}: started with {model}")

    def _wait_until_ready(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            if self._process.poll() is not None:
                raise InputError(
                    f"server.start: vllm serve ended with status {self._process.returncode} "
                    "before it was ready; the log says why"
                )
            try:
                _open(f"{self.url}/models", timeout=5).close()
            except HTTPError:
                return  # It answers, perhaps that it wants a key.
            except (OSError, HTTPException):
                time.sleep(0.2)
            else:
                return
        raise InputError(f"server.start: vllm serve was not ready within {PATIENCE:g} s")

    def close(self) -> None:
        """End it, by force if a minute is not enough."""
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _end_with_parent() -> None:
    """Have Linux end the process when its parent's is gone, however that was."""
    if sys.platform == "linux":
        _libc.prctl(1, signal.SIGTERM)
