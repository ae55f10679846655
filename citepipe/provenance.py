"""Digests of what results depend on: files by their content, code by what it does."""

import ast
import atexit
import hashlib
import json
import os
from functools import cache
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grimp

ROOT = Path(__file__).resolve().parents[1]
KEPT = Path(".snakemake", "citepipe-digests.json")
"""Digests by path, size and times, so that a file is read again only if it has changed."""

WITHOUT_RESULT = {"config", "errors", "inputs", "options", "progress", "runstate", "tracking"}
"""Modules that no result depends on: options count by their values, which are parameters."""

STALE = "stale"
"""The name of the input that makes a job run again; it is no input of the work itself."""

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "spacy", "nltk", "bm25s")
"""Those whose versions can change results."""

MESSAGES = {"print", "say", "summary", "warn", "Progress"}
"""Functions that only show what they are given."""


class Behaviour(ast.NodeTransformer):
    """Takes out of a syntax tree what changes nothing that a program computes."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """A docstring."""
        return ast.Pass() if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """An error's words; its kind stays."""
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(exc=kind, cause=None)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """What is shown to people."""
        name = getattr(node.func, "id", getattr(node.func, "attr", None))
        if name in MESSAGES:
            return ast.Call(func=node.func, args=[], keywords=[])
        return self.generic_visit(node)


def behaviour(source: str) -> str:
    """A text that is equal for programs that differ in comments, docstrings and messages only."""
    return ast.dump(Behaviour().visit(ast.parse(source)))


def digest_of(value: Any) -> str:
    """A short digest of plain values or bytes."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:16]


class Kept:
    """Digests of files, kept from run to run."""

    def __init__(self) -> None:
        try:
            self.digests = dict(json.loads(KEPT.read_bytes()))
        except (OSError, ValueError):
            self.digests = {}
        self.changed = False
        atexit.register(self.save)

    def of(self, path: Path, kind: str) -> str:
        """A file's digest, of its bytes or (kind `code`) of its behaviour."""
        status = path.stat()
        mark = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        key = f"{kind} {os.path.relpath(path)}"
        known = self.digests.get(key)
        if isinstance(known, list) and known[:-1] == mark:
            return str(known[-1])
        if kind == "code":
            digest = digest_of(behaviour(path.read_text(encoding="utf-8")).encode())
        else:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
        self.digests[key] = [*mark, digest]
        self.changed = True
        return digest

    def save(self) -> None:
        """Keep the digests, beside Snakemake's own records; without them they are computed anew."""
        if not self.changed or not KEPT.parent.is_dir():
            return
        partial = KEPT.with_name(f"{KEPT.name}.partial")
        try:
            partial.write_text(json.dumps(self.digests))
            partial.replace(KEPT)
        except OSError:
            pass


kept = cache(Kept)


def digest_of_path(path: Path) -> str:
    """A digest of a file's content, or of the names and contents of a folder's files."""
    if not path.is_dir():
        return kept().of(path, "file") if path.exists() else "absent"
    files = sorted(file for file in path.rglob("*") if is_input(file, path))
    return digest_of([[str(file.relative_to(path)), kept().of(file, "file")] for file in files])


def is_input(file: Path, folder: Path) -> bool:
    """Whether a file of a folder counts: hidden ones (`.git`, `.snakemake_timestamp`) do not."""
    parts = file.relative_to(folder).parts
    return file.is_file() and not any(part.startswith(".") for part in parts)


@cache
def graph() -> "grimp.ImportGraph":
    """Who imports whom in the package."""
    import grimp

    return grimp.build_graph("citepipe", exclude_type_checking_imports=True, cache_dir=None)


def code_of(*names: str) -> str:
    """A digest of what scripts (`train_sft.py`) and modules of the package do, imports included."""
    paths = {ROOT / "workflow" / "scripts" / name for name in names if name.endswith(".py")}
    modules = {name for name in names if not name.endswith(".py")}
    for module in list(modules):
        modules |= graph().find_upstream_modules(module)
    for module in modules:
        if module.partition(".")[2].partition(".")[0] not in WITHOUT_RESULT:
            path = ROOT.joinpath(*module.split("."))
            paths.add(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    return digest_of(sorted(kept().of(path, "code") for path in paths))


def code_of_own(module: str) -> str:
    """A digest of what a user's module does, with the modules beside it that it imports."""
    if module.partition(".")[0] == "citepipe":
        return code_of(module)
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if path is None or name in found:
            continue
        found[name] = kept().of(path, "code")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                # `from . import x` names a module of the same folder.
                base = [node.module] if node.module else []
                if node.level:
                    base = name.split(".")[: -node.level] + base
                waiting += [".".join(base), *(".".join([*base, a.name]) for a in node.names)]
    return digest_of(sorted(found.values())) if found else "absent"


def _file_of(module: str) -> Path | None:
    """The source of a module below the working directory or on the user's own path."""
    places = [str(Path.cwd()), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    for part in module.split("."):
        spec = PathFinder.find_spec(part, places) if part else None
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def record_of(results: str, output: str) -> Path:
    """The file that says what an output of a job was made of."""
    return Path(results, ".made", os.path.relpath(output, results) + ".json")


@cache
def versions() -> dict[str, str]:
    """The versions of `PACKAGES` here."""
    return {name: metadata.version(name) for name in PACKAGES}


def read_record(record: Path) -> Any:
    """What an output was made of; None if nothing readable says so."""
    try:
        return json.loads(record.read_bytes())
    except (OSError, ValueError):
        return None


def write_record(record: Path, made_of: dict[str, Any]) -> None:
    """Note what an output was made of, and with what versions, which make nothing stale."""
    record.parent.mkdir(parents=True, exist_ok=True)
    partial = record.with_name(f"{record.name}.partial")
    partial.write_text(json.dumps(made_of | {"versions": versions()}, sort_keys=True))
    partial.replace(record)
