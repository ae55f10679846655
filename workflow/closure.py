"""Which files a stage's code is made of, so that only the stages whose code changed run again.

Snakemake does not look into the modules that a script imports. The workflow therefore names them as
inputs: the package's modules that a script reaches by imports, also by those inside functions.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


class Closure:
    """The import closures of files and modules inside one package.

    Args:
        root: the folder that holds the package.
        package: the package's name; imports of anything else are passed over.
    """

    def __init__(self, root: Path, package: str) -> None:
        self.root = root
        self.package = package
        self._imports = cache(self._read_imports)

    def of_script(self, script: Path) -> list[Path]:
        """The files of the package that a script outside it runs on, sorted."""
        return self._walk(self._imports(script))

    def of_module(self, module: str) -> list[Path]:
        """The files behind `import module`, its packages' `__init__.py` included, sorted."""
        return self._walk(frozenset({module}))

    def _walk(self, modules: frozenset[str]) -> list[Path]:
        files: set[Path] = set()
        waiting = set(modules)
        while waiting:
            for path in self._files(waiting.pop()):
                if path not in files:
                    files.add(path)
                    waiting |= self._imports(path)
        return sorted(files)

    def _files(self, module: str) -> Iterator[Path]:
        """A module's file, and the `__init__.py` of every package above it, which run first."""
        parts = module.split(".")
        if parts[0] != self.package:
            return
        for depth in range(1, len(parts) + 1):
            path = self.root.joinpath(*parts[:depth])
            if (path / "__init__.py").is_file():
                yield path / "__init__.py"
            elif path.with_suffix(".py").is_file():
                yield path.with_suffix(".py")

    def _read_imports(self, path: Path) -> frozenset[str]:
        """The dotted names that a file imports; a name may also be that of a class or function."""
        names: set[str] = set()
        waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"), str(path))]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                waiting += node.orelse
                continue
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = self._base(node, path)
                names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
            waiting += ast.iter_child_nodes(node)
        return frozenset(name for name in names if name.split(".")[0] == self.package)

    def _base(self, node: ast.ImportFrom, path: Path) -> str:
        """The absolute name that `from ... import` takes its names from."""
        if node.level == 0:
            return node.module or ""
        parts = path.relative_to(self.root).parts[: -node.level]
        return ".".join((*parts, *((node.module,) if node.module else ())))
