"""How another process finds a model's class.

A class in a module is imported there. One that lives in ``__main__`` is found by running the script once more, up to
the ``serve()`` at its end: that, or an engine that it makes, raises :class:`ServeReached`, so that nothing after it
runs. The module is called ``__main__`` there, too, and so what the model pickles means the same in both processes.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from aipod.errors import ConfigError
from aipod.model.base import AIModelBase

__all__ = ["Origin", "ServeReached", "reached", "stop_at_serve"]

_Stop = Literal["never", "serve", "engine"]


class ServeReached(BaseException):
    """Stops a script at its ``serve()``, and everything after that; see :func:`stop_at_serve`.

    Attributes:
        model_class: What it was to serve.
        module: Where that is defined. An import that fails is forgotten by Python; whoever goes on with the class puts
            the module back, or nothing that it defines can be pickled.
    """

    def __init__(self, model_class: type[AIModelBase]) -> None:
        super().__init__(model_class)
        self.model_class = model_class
        self.module: ModuleType | None = sys.modules.get(getattr(model_class, "__module__", ""))


_stop: ContextVar[_Stop] = ContextVar("aipod-stop-at-serve", default="never")


@contextmanager
def stop_at_serve(engines: bool = False) -> Iterator[None]:
    """Have ``serve()`` raise :class:`ServeReached`, for whoever runs a script only to learn what it serves.

    Args:
        engines: Whether to stop at an engine, or a server, that is made in another way, too.
    """
    token = _stop.set("engine" if engines else "serve")
    try:
        yield
    finally:
        _stop.reset(token)


def reached(model_class: type[AIModelBase], engine: bool = False) -> None:
    """Say that a class is about to be served.

    Args:
        engine: Whether that is an engine that is made, and no ``serve()``.

    Raises:
        ServeReached: Somebody only wants to know.
    """
    if _stop.get() == "engine" or (_stop.get() == "serve" and not engine):
        raise ServeReached(model_class)


@dataclass(frozen=True)
class Origin:
    """Where a class comes from, in plain values.

    Attributes:
        name: The class's name in its module.
        module: The module's name; ``"__main__"`` for a script.
        file: The file to run or to load; ``""`` where the name of a module says enough.
        program: The module that ``python -m`` was given; ``""`` if it was none.
        arguments: The command line of the script.
    """

    name: str
    module: str
    file: str = ""
    program: str = ""
    arguments: tuple[str, ...] = ()

    @classmethod
    def of(cls, model_class: type[AIModelBase]) -> Origin:
        """The origin of a class.

        Raises:
            ConfigError: No other process can find it; the sentence says what to do.
        """
        # A script that is run only up to here must not go on to a child of its own.
        reached(model_class, engine=True)
        name, module_name = model_class.__qualname__, model_class.__module__
        if "<locals>" in name:
            raise _unfindable(model_class, "it is defined inside a function; define it at the top of a module")
        module = sys.modules.get(module_name)
        if module is None:
            raise _unfindable(model_class, f"its module {module_name!r} is not imported; leave it in sys.modules")
        if _attribute(module, name) is not model_class:
            raise _unfindable(model_class, f"{module_name}.{name} is something else; give the class that name")
        if module_name == "__main__":
            return cls._of_main(model_class, module)
        spec = module.__spec__
        if spec is None or spec.origin is None:
            raise _unfindable(model_class, f"its module {module_name!r} has no file; put it into one")
        # By its file where that is all: another of the same name may come first on the path.
        alone = "." not in module_name and spec.submodule_search_locations is None
        return cls(name, module_name, os.path.abspath(spec.origin) if alone and spec.has_location else "")

    @classmethod
    def _of_main(cls, model_class: type[AIModelBase], module: ModuleType) -> Origin:
        spec, file = module.__spec__, getattr(module, "__file__", None)
        arguments = tuple(sys.argv)
        if spec is not None and spec.name != "__main__":
            return cls(model_class.__qualname__, "__main__", program=spec.name, arguments=arguments)
        if file is None or not os.path.isfile(file):
            raise _unfindable(model_class, "it was typed at a prompt; put it into a file and import it from there")
        return cls(model_class.__qualname__, "__main__", os.path.abspath(file), arguments=arguments)

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Origin:
        """Make one of what :meth:`fields` gave."""
        return cls(**{**fields, "arguments": tuple(fields["arguments"])})

    def fields(self) -> dict[str, Any]:
        """Its plain values."""
        return asdict(self)

    def find(self) -> type[AIModelBase]:
        """Find the class, in a process that has the same path.

        Raises:
            ConfigError: It is not there any more.
            BaseException: What the module, or the script, raised.
        """
        found: Any = None
        try:
            if self.module == "__main__":
                module = self._run()
            elif self.file:
                module = _load(self.module, self.file)
            else:
                with stop_at_serve():
                    module = importlib.import_module(self.module)
        except ServeReached as served:
            found, module = served.model_class, served.module or sys.modules["__main__"]
            sys.modules.setdefault(module.__name__, module)
        found = _attribute(module, self.name) or found
        if not (isinstance(found, type) and issubclass(found, AIModelBase)):
            raise ConfigError([f"{self.file or self.program or self.module} has no model class {self.name!r} any more"])
        return found

    def _run(self) -> ModuleType:
        """Run the script up to its ``serve()``, as ``__main__``."""
        sys.argv = list(self.arguments)
        module = sys.modules["__main__"] = ModuleType("__main__")
        module.__builtins__ = builtins  # type: ignore[attr-defined]
        file = self.file
        if self.program:
            spec = importlib.util.find_spec(self.program)
            if spec is None or spec.origin is None:
                raise ConfigError([f"there is no module {self.program!r} any more"])
            module.__spec__, module.__package__, file = spec, spec.parent, spec.origin
        module.__file__ = file
        with stop_at_serve(engines=True):
            exec(compile(Path(file).read_bytes(), file, "exec"), module.__dict__)
        return module


def _load(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError([f"{file} is no Python file any more"])
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with stop_at_serve():
            spec.loader.exec_module(module)
    except ServeReached as served:
        # What it defines is pickled under its name, and so it stays.
        served.module = module
        raise
    return module


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        return None


def _unfindable(model_class: type, reason: str) -> ConfigError:
    return ConfigError([f"no other process can find the class {model_class.__qualname__}: {reason}"])
