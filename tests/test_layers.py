"""The house: which package may import which, and what no file of it may do.

The table is the design's. A layer imports from layers below it and from itself. Imports under ``TYPE_CHECKING``, inside
a function, or by a name in a string count like any other: what one must know to understand the file is the same.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "aipod"
LONGEST_FILE = 400

# Floor 0, the lowest first: each may import those before it.
GROUND = ("errors", "memory", "clock", "burst", "config", "codec", "shm", "process", "metrics")
# The other floors, and what each may import. The row with the longest name that fits a module is the module's.
FLOORS: dict[str, tuple[str, ...]] = {
    "model": GROUND,
    "trainlog": ("model", *GROUND),
    "package": ("model", *GROUND),
    "engine": ("model", *GROUND),
    "rpc": ("engine", "model", *GROUND),
    "rpc.front": ("rpc.keepalive", *GROUND),
    "rpc.client": ("rpc", "model", *GROUND),
    "stream": ("rpc.client", "rpc.health", *GROUND),
    "testing": ("stream", "rpc", "engine", "model", "trainlog", "package", *GROUND),
    "cli": ("stream", "rpc", "engine", "model", "trainlog", "package", *GROUND),
    "__main__": ("cli",),
}
# Within what a row allows, what it must leave alone all the same.
NEVER: dict[str, tuple[str, ...]] = {
    "rpc.client": ("aipod.rpc.server", "aipod.rpc.front"),
    "rpc.front": ("google",),
}
# Libraries that only some may know of, and who they are.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "grpc": ("rpc", "testing", "cli"),
    "google": ("rpc", "testing", "cli"),
    "nats": ("stream", "cli"),
    "click": ("cli",),
    "cachetools": ("engine",),
    "msgpack": ("codec", "rpc", "stream"),
    "multiprocessing": ("process", "engine"),
    "pickle": (),
}


@dataclass(frozen=True)
class Import:
    """One import of one file: ``what`` is a dotted name, ``place`` a file and a line."""

    module: str
    what: str
    place: str


def allowed(module: str) -> tuple[str, ...]:
    """List what the table allows a module (a dotted name without "aipod."), its own row included."""
    row = _row(module, tuple(FLOORS) + GROUND)
    if row in GROUND:
        return GROUND[: GROUND.index(row) + 1]
    return (*FLOORS[row], row) if row else ()


def complaint(found: Import) -> str | None:
    """Say what is wrong with an import; None if nothing is."""
    package, _, target = found.what.partition(".")
    if package == "aipod":
        # The package itself holds the version and nothing else.
        fine = not target or _row(target, allowed(found.module))
    else:
        fine = package not in LIBRARIES or _row(found.module, LIBRARIES[package])
    if fine and not _row(found.what, NEVER.get(_row(found.module, tuple(NEVER)), ())):
        return None
    names = ", ".join(allowed(found.module)) or "nothing"
    return f"{found.place}: aipod.{found.module} imports {found.what}; of ours it may import {names}"


def _row(module: str, rows: tuple[str, ...]) -> str:
    fitting = [row for row in rows if module == row or module.startswith(row + ".")]
    return max(fitting, key=len, default="")


@functools.cache
def parsed() -> dict[str, tuple[Path, ast.Module]]:
    """Read every module that a person wrote, by its name without "aipod."; the package itself is ""."""
    modules = {}
    for path in sorted(HOUSE.rglob("*.py")):
        if not path.stem.endswith("_pb2"):
            parts = path.relative_to(HOUSE).with_suffix("").parts
            name = ".".join(parts).removesuffix("__init__").removesuffix(".")
            modules[name] = (path, ast.parse(path.read_text("utf-8"), str(path)))
    return modules


def imports(module: str, tree: ast.Module, where: str) -> Iterator[Import]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A relative import has no name to look up in the table, and the style has none.
            base = "." * node.level + (node.module or "")
            names = [_module_of(base, alias.name) for alias in node.names]
        elif isinstance(node, ast.Call) and _name_of(node.func) in ("import_module", "__import__"):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        for name in names:
            yield Import(module, name, f"{where}:{getattr(node, 'lineno', 0)}")


def _module_of(base: str, name: str) -> str:
    """Tell ``from package import module`` from ``from module import thing``."""
    place = ROOT.joinpath(*base.split("."), name)
    is_module = place.is_dir() or place.with_suffix(".py").is_file()
    return f"{base}.{name}" if is_module else base


def _name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def all_imports() -> Iterator[Import]:
    for module, (path, tree) in parsed().items():
        yield from imports(module, tree, str(path.relative_to(ROOT)))


def test_nothing_imports_from_a_layer_that_is_not_below_it() -> None:
    complaints = [problem for found in all_imports() if (problem := complaint(found))]
    assert not complaints, "\n".join(complaints)


def test_every_import_is_absolute() -> None:
    relative = [found.place for found in all_imports() if found.what.startswith(".")]
    assert not relative


def test_every_module_has_a_row_in_the_table() -> None:
    homeless = [name for name in parsed() if name and not _row(name, tuple(FLOORS) + GROUND)]
    assert not homeless, "give it a row in DESIGN.md and here"


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("engine.pool", "import aipod.model.store", False),
        ("engine.pool", "from aipod.errors import LoadError", False),
        ("engine.pool", "import aipod", False),
        ("engine.pool", "import aipod.rpc.status", True),
        ("engine.pool", "from aipod import rpc", True),
        ("engine.pool", "def f():\n    import grpc", True),
        ("engine.pool", "importlib.import_module('aipod.rpc.server')", True),
        ("model.base", "if TYPE_CHECKING:\n    from aipod.engine.call import Call", True),
        ("errors", "import aipod.config", True),
        ("config.settings", "from aipod.config import kinds", False),
        ("config.settings", "from aipod.codec import encode", True),
        ("codec.wire", "import google.protobuf", True),
        ("rpc.server", "from aipod.engine.pool import Pool", False),
        ("rpc.server", "import aipod.rpc.client", False),
        ("rpc.client", "import aipod.rpc.status", False),
        ("rpc.client", "import aipod.engine", True),
        ("rpc.client", "from aipod.rpc.server import serve", True),
        ("rpc.client.aio", "import aipod.rpc.server.drain", True),
        ("rpc.clients", "import aipod.engine", False),
        ("stream.task", "import aipod.rpc.client", False),
        ("stream.task", "import aipod.rpc.server", True),
        ("cli.main", "import aipod.testing", True),
        ("cli.main", "import aipod.stream", False),
        ("rpc.trunk", "import pickle", True),
        ("rpc.server", "import aipod.cli.main", True),
        ("rpc.front.aio", "import grpc", False),
        ("rpc.front.aio", "from aipod.config import Settings", False),
        ("rpc.front.aio", "from google.protobuf import message", True),
        ("rpc.front.aio", "import aipod.rpc.v1.model_pb2", True),
        ("rpc.front.aio", "import aipod.model", True),
        ("attic", "import aipod.errors", True),
    ],
)
def test_the_table_is_read_as_it_is_meant(module: str, line: str, wrong: bool) -> None:
    [found] = imports(module, ast.parse(line), f"aipod/{module}.py")
    assert bool(complaint(found)) is wrong, complaint(found)


def test_a_complaint_names_the_line_and_what_would_be_right() -> None:
    [found] = imports("engine.pool", ast.parse("\n\nimport aipod.rpc.status"), "aipod/engine/pool.py")
    assert complaint(found) == (
        "aipod/engine/pool.py:3: aipod.engine.pool imports aipod.rpc.status;"
        " of ours it may import model, errors, memory, clock, burst, config, codec, shm, process, metrics, engine"
    )


def test_only_config_reads_the_environment() -> None:
    readers = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for module, (path, tree) in parsed().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.Attribute, ast.alias))
        and (node.attr if isinstance(node, ast.Attribute) else node.name)
        in ("environ", "environb", "getenv", "getenvb")
        and not _row(module, ("config",))
    ]
    assert not readers


def test_no_file_is_named_for_nothing_in_particular() -> None:
    vague = re.compile(r"_?(utils?|helpers?|manager|common|misc)")
    assert not [name for name in parsed() if any(vague.fullmatch(part) for part in name.split("."))]


def test_no_file_is_longer_than_one_can_read_at_once() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path, _ in parsed().values()}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


def _run(program: str, directory: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


# What an import could change, looked at after each; os.environ is a dictionary that keeps what was asked of it.
WATCH = """
import asyncio, importlib, logging, multiprocessing, os, signal, threading

class Watched(dict):
    asked = []
    def __getitem__(self, key): self.asked.append(key); return super().__getitem__(key)
    def __contains__(self, key): self.asked.append(key); return super().__contains__(key)
    def get(self, key, default=None): self.asked.append(key); return super().get(key, default)

def world():
    return {
        "threads": [thread.name for thread in threading.enumerate()],
        "children": multiprocessing.active_children(),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "signals": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)],
        "handlers": logging.getLogger().handlers + logging.getLogger("aipod").handlers,
        "levels": [logging.getLogger().level, logging.getLogger("aipod").level],
        "hooks": [sys.excepthook, threading.excepthook, asyncio.get_event_loop_policy],
        "directory": [os.getcwd(), os.listdir()],
        "environment": dict.copy(os.environ),
    }

os.environ = Watched(os.environ)
before = world()
for module in modules:
    importlib.import_module(module)
    print(*[f"{module} changes {what}" for what, now in world().items() if now != before[what]], end="")
    print(*[f"{module} reads {name}" for name in Watched.asked if str(name).startswith("AIPOD_")], end="")
    Watched.asked.clear()
"""


def test_to_import_a_module_of_ours_changes_nothing(tmp_path: Path) -> None:
    modules = [f"aipod.{name}".strip(".") for name in parsed() if not name.endswith("__main__")]
    assert not _run(f"modules = {modules!r}\n{WATCH}", tmp_path)


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("rpc.client", ("aipod.engine", "aipod.rpc.server", "aipod.rpc.front", "aipod.cli")),
        ("model", ("aipod.engine", "aipod.rpc", "grpc", "google.protobuf")),
        ("engine", ("aipod.rpc", "grpc", "google.protobuf")),
        ("codec", ("google.protobuf", "grpc", "ml_dtypes")),
        ("config", ("numpy", "msgpack", "grpc", "google.protobuf")),
    ],
)
def test_an_import_pulls_in_no_stranger(module: str, strangers: tuple[str, ...], tmp_path: Path) -> None:
    if module not in parsed():
        pytest.skip(f"there is no aipod.{module} yet")
    pulled_in = _run(f"import aipod.{module}; print(*sys.modules)", tmp_path).split()
    assert not [name for name in pulled_in if _row(name, strangers)]
