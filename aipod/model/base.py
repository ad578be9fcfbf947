"""The user's contract: a class with a few verbs, of which every one may be left out.

What runs when: ``initialize`` and ``train`` each run on a fresh instance whose directory becomes a revision
afterwards. ``load``, then ``warmup`` if the class has one, runs once on an instance that is going to predict.
Everything works without a server too: ``Digits("v1").train()`` in a notebook writes to ``appdata/models/v1``.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Hashable, Mapping
from pathlib import Path, PurePath
from typing import Any, ClassVar, Literal

from aipod.errors import InvalidArgument, LoadError, NotInitialized, NotSupportedError
from aipod.model import disk, jsontext
from aipod.model.batching import BatchPredict
from aipod.model.names import DEFAULT_VERSION, check_version
from aipod.model.place import Place
from aipod.model.run import NO_RUN, Asked, Run
from aipod.model.trainlog import TrainingLog

__all__ = ["MODEL_INFO_NAME", "AIModelBase", "has_batches", "has_unused_batches"]

MODEL_INFO_NAME = "model.json"


class AIModelBase:
    """Derive from this and override what the model can do.

    Beside the methods below a class may have ``warmup()``, ``memory_bytes() -> int``, and ``predict_batch(inputs:
    list[dict]) -> list`` in place of ``predict``. That gets the arguments of several calls and returns one output for
    each, in their order; an exception among the outputs fails its call alone. While the outputs are sent the next batch
    runs already, so they must not lie in memory that it writes to. ``predict`` and ``predict_batch`` may be ``async
    def``.

    Attributes:
        max_concurrency: How many calls may be in ``predict`` of one instance at the same time; 0 is no limit. Of
            batches it is one at a time, unless this says how many.
        isolation: Whether an instance lives in the server (``"thread"``) or in a process of its own (``"process"``).
        replicas: How many copies an instance has; each is a process, if there are several.
        max_batch_size: How many calls a batch has at most.
        batch_timeout: Seconds that a call waits for others to share its batch; 0 takes those that are there.
        latency_target: Seconds that ``predict_batch`` may take; the size that keeps to it is found. 0 is no target.
        stacked: Whether ``predict_batch`` gets, and returns, dictionaries of arrays whose first axis is the calls.
        ragged: What happens to calls with arrays of different shapes: ``"apart"`` puts them in batches of their own,
            ``"pad"`` fills them up with ``pad_value``.
        device: What this copy is to run on, such as ``"cuda:0"``; ``""`` where the server was told of none.
        resumable: Whether an interrupted ``train`` can go on from what its directory holds; see ``resume_from``.
        version: The name that the client chose, ``"default"`` if none.
        datapath: The root of the data; ``model_dir()`` says where this instance's lie.
        training_log: Records of the running or the latest training; ``trainning_logger`` is 1.0's name for it.
        disposed: Whether ``dispose`` ran.
    """

    max_concurrency: ClassVar[int] = 0
    isolation: ClassVar[Literal["thread", "process"]] = "thread"
    replicas: ClassVar[int] = 1
    max_batch_size: ClassVar[int] = 32
    batch_timeout: ClassVar[float] = 0.0
    latency_target: ClassVar[float] = 0.0
    stacked: ClassVar[bool] = False
    ragged: ClassVar[Literal["apart", "pad"]] = "apart"
    pad_value: ClassVar[float] = 0

    # What a copy is to run on, where the server was told of several.
    device: str = ""
    # Of a class whose training can go on from what an interrupted one left in its directory.
    resumable: ClassVar[bool] = False

    cancelled = Asked(lambda run: run.cancelled, "Whether ``train`` is to end, and what it made to be thrown away.")
    stopping = Asked(lambda run: run.stopping, "Whether ``train`` is to end early, and what it has to be published.")
    resume_from = Asked(lambda run: run.resume_from, "Where an interrupted run left what it had; None if none did.")

    # Private names say whose they are: this class shares its instances with whatever a user calls his own.
    _aipod_place: Place | None = None
    _aipod_run: Run = NO_RUN
    _model_info: dict[str, Any] | None = None

    def __init__(
        self, version: str | None = None, datapath: str | os.PathLike[str] | None = None, **kwargs: Any
    ) -> None:
        self._aipod_settle(check_version(version), Path(datapath or "appdata/"), self._aipod_place)

    def _aipod_settle(self, version: str, datapath: Path, place: Place | None) -> None:
        self.version = version or DEFAULT_VERSION
        self.datapath = datapath
        self.disposed = False
        self._aipod_place = place
        self.training_log = TrainingLog(
            lambda: self._aipod_where().log_path(),
            lambda: self._aipod_where().begin_record(self.version),
            lambda: self._aipod_run,
        )

    @property
    def trainning_logger(self) -> TrainingLog:
        return self.training_log

    @trainning_logger.setter
    def trainning_logger(self, log: TrainingLog) -> None:
        self.training_log = log

    def model_dir(self, *names: str | os.PathLike[str], mkdir: bool = True, clear: bool = False) -> Path:
        """The real directory of this instance's data, or one within it.

        A path that was got here stays whole for the life of the instance, whatever is published meanwhile.

        Args:
            names: Path components below it.
            mkdir: Make it if it is not there.
            clear: Remove it first, with everything in it.

        Raises:
            InvalidArgument: ``names`` lead out of the directory.
            StorageError: The disk refused, or ``clear`` would remove what was published.
        """
        place = self._aipod_where()
        path = _within(place.directory(), names)
        with disk.doing(f"using the directory of version {self.version!r}"):
            if clear and path.exists():
                place.refuse_change(path, f"clearing the directory of version {self.version!r}")
                disk.remove_tree(path)
            if mkdir:
                place.prepare()
                path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def model_info_path(self) -> Path:
        return self.model_dir(mkdir=False) / MODEL_INFO_NAME

    @property
    def model_info(self) -> dict[str, Any]:
        """The parameters that the version was initialized with.

        Raises:
            NotInitialized: It never was.
            LoadError: ``model.json`` is there and cannot be read.
        """
        if self._model_info is None:
            self._model_info = _read_info(self.model_info_path, self.version)
        return self._model_info

    # The four verbs take anything here, which is what a type checker lets every override narrow down.

    def initialize(self, *args: Any, **kwargs: Any) -> Any:
        """Start a new state of the version with these parameters; they are ``model_info`` from then on.

        Called on a class alone it clears the version's directory, as 1.0 did, but only when the parameters are known
        to fit.

        Args:
            args: ``binary_data``, which an override may make use of, by position as 1.0 had it.
            kwargs: The parameters; ``binary_data`` is not one of them.

        Raises:
            InvalidArgument: JSON cannot hold a parameter, which is named.
        """
        kwargs.pop("binary_data", None)
        text = jsontext.dumps(kwargs, "parameter", MODEL_INFO_NAME, indent=4)
        place = self._aipod_where()
        place.refuse_change(self.model_dir(mkdir=False), f"initializing version {self.version!r}")
        directory = self.model_dir(clear=place.kind == "in_place")
        with disk.doing(f"initializing version {self.version!r}"):
            disk.write_file(directory / MODEL_INFO_NAME, text.encode())
        self._model_info = json.loads(text)
        return {"result": True, "model_info": self.model_info}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Write a new state of the version under ``model_dir()``; report through ``training_log``.

        Raises:
            NotSupportedError: The class has no ``train``.
        """
        raise NotSupportedError(f"{type(self).__name__} has no train()")

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Answer one call. May run on several threads at once, unless the class says ``max_concurrency = 1``.

        Here it is a batch of one, where the class has ``predict_batch``; a coroutine, if that is one.

        Raises:
            NotSupportedError: The class has neither.
        """
        if not has_batches(type(self)):
            raise NotSupportedError(f"{type(self).__name__} has no predict()")
        if args:
            raise InvalidArgument("the arguments of a batch have names; pass them by keyword")
        return BatchPredict(self)(**kwargs)

    def batch_key(self, kwargs: dict[str, Any]) -> Hashable:
        """What a call must have in common with those that share its batch: text, a number, or a tuple of such.

        Must be quick, since no batch is put together meanwhile.
        """
        return None

    def log(self, *args: Any, **kwargs: Any) -> Any:
        """The records of the log called ``name``; the base class has the training log alone.

        Args:
            args: ``binary_data``, by position as 1.0 had it; ignored.
            kwargs: ``name``, ``"trainning"`` if it is not there; the rest is ignored.

        Raises:
            NotSupportedError: There is no such log.
        """
        name = kwargs.get("name", "trainning")
        if name == "trainning":
            return self.training_log.read_all()
        raise NotSupportedError(f"{type(self).__name__} has no log {name!r}; the training log is called 'trainning'")

    def load(self) -> None:
        """Read what ``train`` wrote; once, before the first ``predict``."""

    def dispose(self) -> None:
        """Let go of what ``load`` took. No call is running any more, and none follows."""
        self.disposed = True

    def _aipod_where(self) -> Place:
        # In place it is found anew each time: code of 1.0 may set version or datapath on the instance.
        return self._aipod_place or Place.in_place(self.datapath, check_version(self.version))


def has_batches(cls: type[AIModelBase]) -> bool:
    """Whether calls of the class are answered by its ``predict_batch``.

    Code of 1.0 may have a method of that name for itself. So where there is a ``predict``, too, it counts only if its
    argument is called ``inputs``.
    """
    method = getattr(cls, "predict_batch", None)
    if not callable(method):
        return False
    try:
        arguments = inspect.signature(method).bind("self", "inputs").arguments
    except TypeError:
        return False
    return cls.predict is AIModelBase.predict or "inputs" in arguments


def has_unused_batches(cls: type[AIModelBase]) -> bool:
    """Whether the class has a ``predict_batch`` that is taken for its own affair."""
    return hasattr(cls, "predict_batch") and not has_batches(cls)


def _within(directory: Path, names: tuple[str | os.PathLike[str], ...]) -> Path:
    path = directory
    for name in names:
        part = PurePath(name)
        if part.is_absolute() or ".." in part.parts or "\0" in str(part):
            raise InvalidArgument(
                f"model_dir: {str(part)[:64]!r} leads out of the model's directory; name what is in it"
            )
        path /= part
    return path


def _read_info(path: Path, version: str) -> dict[str, Any]:
    try:
        info = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotInitialized(version) from None
    except OSError as error:
        raise LoadError(version, f"its {path.name} cannot be read ({os.strerror(error.errno or 0)})") from None
    except (ValueError, RecursionError):
        raise LoadError(version, f"its {path.name} is not JSON in UTF-8; initialize the version again") from None
    if not isinstance(info, Mapping):
        raise LoadError(version, f"its {path.name} is no JSON object; initialize the version again")
    return dict(info)
