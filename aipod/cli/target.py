"""``module:Class`` or ``path/to/file.py:Class``, as it is written on a command line, to the class."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from aipod.engine.child.origin import ServeReached, stop_at_serve
from aipod.errors import ConfigError
from aipod.model.base import AIModelBase

__all__ = ["load_class"]


def load_class(target: str) -> type[AIModelBase]:
    """Import what ``target`` names, with the current directory, or the file's own, on ``sys.path``.

    A script that calls ``serve()`` while it is imported is stopped there: what it was to serve is its class.

    Raises:
        ConfigError: There is no such thing, it is no model, or it does not import (``__cause__`` says why).
    """
    where, colon, name = target.rpartition(":")
    if not (colon and where and name):
        raise ConfigError([f"{target!r} names no class; write module:Class or path/to/file.py:Class"])
    try:
        with stop_at_serve():
            module = _import_file(Path(where)) if where.endswith(".py") else _import_module(where)
    except ConfigError:
        raise
    except ServeReached as reached:
        return _class_served(reached, name, where)
    # A module can end the process, or be the script that does.
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError([f"{where} does not import ({reason}); --debug shows where"]) from error
    return _class_of(module, name, where)


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError([f"{name!r} is no module's name; write module:Class or path/to/file.py:Class"])
    _look_in(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # What is missing can also be something that the module itself imports.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError([f"there is no module {error.name!r} in this directory or among those installed"]) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError([f"there is no file {str(path)!r}; write path/to/file.py:Class"])
    path = path.resolve()
    _look_in(path.parent)
    # Under its real name, so that what the model pickles, or a module beside it imports, means this very module.
    name = path.stem
    if name in sys.modules:
        raise ConfigError([f"{path.name} has the name of a module that is in use already; rename the file"])
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError([f"{path.name} is no Python file"])
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _look_in(directory: Path) -> None:
    # First, as for a script; a directory that is there already keeps its place.
    if str(directory) not in map(os.path.abspath, sys.path):
        sys.path.insert(0, str(directory))


def _class_served(reached: ServeReached, name: str, where: str) -> type[AIModelBase]:
    # Whether it is a class at all is for the server to say.
    served = getattr(reached.model_class, "__name__", type(reached.model_class).__name__)
    if served != name:
        remedy = f"write {where}:{served}, or put its serve() under if __name__ == '__main__'"
        raise ConfigError([f"{where} serves {served} by itself, not {name}; {remedy}"])
    if reached.module is not None:
        sys.modules.setdefault(reached.module.__name__, reached.module)
    return reached.model_class


def _class_of(module: ModuleType, name: str, where: str) -> type[AIModelBase]:
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, AIModelBase):
        return found
    models = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, AIModelBase) and value is not AIModelBase
    ]
    problem = f"{where} has no {name!r}" if found is None else f"{name!r} in {where} is no subclass of AIModelBase"
    raise ConfigError([f"{problem}; {_choices(models)}"])


def _choices(models: list[str]) -> str:
    return f"its models are: {', '.join(models)}" if models else "no class in it derives from AIModelBase"
