"""How another process finds a class: in modules, in files, and in scripts that end in an unguarded ``serve()``."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import child_models
import pytest

from aipod.engine import Engine
from aipod.engine.child import Origin
from aipod.engine.child.origin import ServeReached, stop_at_serve
from aipod.errors import ConfigError
from aipod.model import AIModelBase

ROOT = Path(__file__).parent.parent.parent

# Says where its class is found, in the process that is the server; and in the child, what it found there.
BEGIN = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from aipod.engine.child import ChildInstance, MakeOrder, Origin
from aipod.model import AIModelBase
from aipod.rpc import server

RUNS = Path(__file__).parent / "runs"
RUNS.write_text(RUNS.read_text() + __name__ + "\\n" if RUNS.exists() else __name__ + "\\n")

class Model(AIModelBase):
    class Inner(AIModelBase):
        pass
    def predict(self):
        import pickle
        cls, same = type(self), pickle.loads(pickle.dumps(Model)) is Model
        return [cls.__module__, cls.__qualname__, same, sys.argv[1:]]

def try_out(model):
    class Source:
        deadline = None
        def watch(self, action): pass
    order = MakeOrder(Origin.of(model).fields(), "v1", ".", "staging", ".")
    child = ChildInstance.start(order)
    print(child.call("predict", {{}}, Source()), flush=True)
    child.end(20.0)

def serve(model):
    try_out(model)

server.Server.start = lambda self: serve(self.engine.model_class)
"""


def run(directory: Path, text: str, *arguments: str, module: str = "") -> tuple[str, list[str]]:
    """Run a script; what it printed, and the names under which it was run."""
    script = directory / "script.py"
    script.write_text(BEGIN.format(root=str(ROOT)) + text)
    argv = [sys.executable, *(("-m", module) if module else (str(script),)), *arguments]
    done = subprocess.run(argv, check=False, cwd=directory, capture_output=True, text=True, timeout=60)
    assert not done.returncode, done.stderr
    return done.stdout.strip(), (directory / "runs").read_text().split()


FOUND = "['__main__', 'Model', True, {}]"


@pytest.mark.parametrize(
    "end",
    [
        "server.serve(Model)",
        "if __name__ == '__main__':\n    server.serve(Model)",
        "with server.Server(Model): pass",
        "try_out(Model)",
        "from aipod.engine import Engine\nEngine(Model)\ntry_out(Model)",
    ],
)
def test_a_script_is_run_up_to_where_it_serves_and_no_further(tmp_path: Path, end: str) -> None:
    if end.startswith(("server.serve", "if")):
        end = "import os\nserver.Signals = None\n" + end.replace("server.serve(Model)", "SERVE")
        end = end.replace("SERVE", "server.reached(Model); try_out(Model)")
    output, runs = run(tmp_path, end + "\nprint('behind it')", "--flag", "1")
    assert output.splitlines() == [FOUND.format("['--flag', '1']"), "behind it"]
    assert runs == ["__main__", "__main__"]


def test_a_module_that_python_runs_is_run_by_its_name(tmp_path: Path) -> None:
    output, runs = run(tmp_path, "if __name__ == '__main__': try_out(Model)", module="script")
    assert output == FOUND.format("[]")
    assert runs == ["__main__", "__main__"]


def test_what_is_imported_is_imported_there_too(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("from script import Model, try_out\ntry_out(Model)")
    (tmp_path / "script.py").write_text(BEGIN.format(root=str(ROOT)))
    done = subprocess.run(
        [sys.executable, "other.py"], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "['script', 'Model', True, []]", done.stderr


def test_a_class_of_an_imported_module_is_itself_again() -> None:
    origin = Origin.of(child_models.Echo)
    assert Origin.read(origin.fields()) == origin
    assert (origin.module, origin.name) == ("child_models", "Echo")


class Outer:
    class Inner(AIModelBase):
        pass


def test_a_class_within_a_class_is_found() -> None:
    assert Origin.of(Outer.Inner).name == "Outer.Inner"


def of_a_function() -> type[AIModelBase]:
    class Local(AIModelBase):
        pass

    return Local


def of_a_prompt() -> type[AIModelBase]:
    return type("Typed", (AIModelBase,), {"__module__": "gone"})


def renamed() -> type[AIModelBase]:
    return type("Echo", (AIModelBase,), {"__module__": "child_models", "__qualname__": "Echo"})


def without_a_file() -> type[AIModelBase]:
    module = sys.modules["made_up"] = ModuleType("made_up")
    module.Model = type("Model", (AIModelBase,), {"__module__": "made_up"})  # type: ignore[attr-defined]
    found: type[AIModelBase] = module.Model
    return found


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (of_a_function, "it is defined inside a function; define it at the top of a module"),
        (of_a_prompt, "its module 'gone' is not imported"),
        (renamed, "child_models.Echo is something else; give the class that name"),
        (without_a_file, "its module 'made_up' has no file; put it into one"),
    ],
)
def test_one_that_nobody_else_can_find_is_refused_with_what_to_do(
    make: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "made_up", ModuleType("made_up"))
    assert callable(make)
    with pytest.raises(ConfigError, match="no other process can find the class") as caught:
        Origin.of(make())
    assert words in str(caught.value)


def test_a_class_typed_at_a_prompt_is_refused() -> None:
    program = (
        "from aipod.engine.child import Origin\nfrom aipod.model import AIModelBase\n"
        "class M(AIModelBase): pass\n"
        "try: Origin.of(M)\nexcept Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert "it was typed at a prompt; put it into a file" in done.stdout


def test_a_module_that_has_lost_its_class_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "losing.py").write_text("from aipod.model import AIModelBase\nclass Model(AIModelBase): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    origin = Origin.of(importlib.import_module("losing").Model)
    (tmp_path / "losing.py").write_text("Model = 3  # and no class\n")
    monkeypatch.delitem(sys.modules, "losing")
    with pytest.raises(ConfigError, match="has no model class 'Model' any more"):
        origin.find()


def test_an_engine_stops_a_script_only_for_who_asks_for_that() -> None:
    with stop_at_serve():
        Engine(child_models.Echo)
    with stop_at_serve(engines=True), pytest.raises(ServeReached):
        Engine(child_models.Echo)
