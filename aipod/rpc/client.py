"""The clients: the model's own methods, for callers elsewhere.

::

    model = AIClient("localhost:50051", version="v1")
    model.predict(image=array)

A client touches no disk and connects with its first call. It may be used from any number of threads, and after a fork.
Every keyword belongs to the model; what is meant for AIPOD goes through ``options``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aipod.errors import AipodError
from aipod.rpc.admin_client import Admin
from aipod.rpc.arguments import take_addresses, take_bytes, take_dtype, take_flag, take_ping, take_shape
from aipod.rpc.async_client import AsyncAIClient
from aipod.rpc.base_client import CONNECT_SECONDS, UNSET, BaseClient, only
from aipod.rpc.calls import MAX_MESSAGE_BYTES, Attempts, Content, Timed, Timings, channel_options, decode
from aipod.rpc.connection import Connection
from aipod.rpc.job_calls import JobInfo, JobRequests
from aipod.rpc.keepalive import PING_SECONDS
from aipod.rpc.route import Route
from aipod.rpc.submitting import Submitter, mapped, take_in_flight
from aipod.rpc.training_job import AsyncTrainingJob, TrainingJob, ask, begin, started, train

__all__ = ["AIClient", "AsyncAIClient", "AsyncTrainingJob", "JobInfo", "Timed", "Timings", "TrainingJob"]


class AIClient(BaseClient):
    """Calls a model on a server, or on one of several that serve the same.

    Args:
        address: ``host:port``, or anything else that gRPC resolves (``unix:/path``, ``dns:///name:port``); or a list of
            them: each call goes to the one with the least to do.
        version: The version, or an alias, that all calls go to.
        timeout: Seconds for predict, initialize and log; None for ever. A train has no limit unless ``options`` sets
            one.
        datapath: For code of 1.0; ignored, since nothing of a client is on disk.
        ping_seconds: While a call runs, how often to make sure that the server is alive; a dead one is noticed after
            twice that.
        max_message_bytes: The largest reply.
        trunk: Whether calls may travel together on one stream, which is what makes many of them at a time fast. Without
            it, or where the server or a proxy on the way does not know it, each is a unary call.
        shared_memory: Whether large arrays may go through memory that is shared with a server on the same host; only
            together with ``trunk``.

    Raises:
        ConfigError: The address is none (also a ValueError).
        InvalidArgument: The timeout or the version is none.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        version: str | None = "default",
        timeout: float | None = 60.0,
        *,
        datapath: object = None,
        ping_seconds: float = PING_SECONDS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        trunk: bool = True,
        shared_memory: bool = True,
    ) -> None:
        self._set_up(version, timeout)
        options = channel_options(take_ping(ping_seconds), take_bytes(max_message_bytes))
        trunk, shared_memory = take_flag("trunk", trunk), take_flag("shared_memory", shared_memory)
        connections = [
            Connection(one, options, max_message_bytes, trunk, shared_memory) for one in take_addresses(address)
        ]
        self._connections = connections
        self._route: Connection | Route = Route(connections) if len(connections) > 1 else connections[0]
        self._submitter = Submitter(self._route)

    def __repr__(self) -> str:
        return f"AIClient({self._route.address!r}, version={self.version!r})"

    def __enter__(self) -> AIClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        return self._route.address

    @cached_property
    def admin(self) -> Admin:
        """The operator's side of the server: versions, load, unload, pin, rollback, aliases, delete, statistics.

        Raises:
            InvalidArgument: The client is for several servers.
        """
        return Admin(only(self._connections))

    def options(
        self,
        *,
        timeout: float | None = UNSET,
        retry: int | bool = UNSET,
        priority: int = UNSET,
        timed: bool = UNSET,
        request_id: str | None = UNSET,
    ) -> AIClient:
        """This client with other options, on the same connection; ``client.options(timeout=1.0).predict(…)``.

        Args:
            timeout: Seconds for every method, train included; None for ever.
            retry: How many more tries a predict, a log or the start of a train may have when the server is away; 0 or
                False for none.
            priority: From -60 to 60: where calls of a version wait, one is served as if it had come so many seconds
                earlier. 0 is the usual.
            timed: Have each call return a :class:`Timed`: its value, and where its time went on the server.
            request_id: Have a train that carries the same one be the same job; None gives each one of its own.

        Raises:
            InvalidArgument: One of them makes no sense.
        """
        variant: AIClient = self._variant(timeout, retry, priority, timed, request_id)
        return variant

    def initialize(self, /, **kwargs: Any) -> Any:
        """Publish a new revision with these parameters. Sent once."""
        return self._call("initialize", kwargs)

    def train(self, /, **kwargs: Any) -> Any:
        """Train and publish; returns what the model's ``train`` returned, when the new revision serves.

        The training is a job of the server's, and this follows it: over lost connections, and over a restart of the
        server if the job outlives it. Whoever stops to wait leaves the job running.

        Raises:
            TrainingInProgress: The version is being trained; the error names the job.
            DeadlineExceeded: The time of ``options(timeout=…)`` was over; the job goes on.
        """
        return train(self._targets(), self._training(kwargs), self.version, self._attempts("train"), self._timed)

    def start_training(self, /, **kwargs: Any) -> TrainingJob:
        """Begin to train, and do not wait for the end.

        Raises:
            TrainingInProgress: The version is being trained; the error names the job.
            NotSupportedError: The model has no ``train``, or the server is older and knows no jobs.
        """
        content, attempts = self._training(kwargs), self._attempts("train")
        job: TrainingJob = started(begin(self._targets(), content, self.version, attempts))
        return job

    def jobs(self, version: str | None = None) -> tuple[JobInfo, ...]:
        """The training jobs of a version, or of all of them, the oldest first; of a version the latest are kept."""
        return ask(only(self._connections), JobRequests.jobs(version))

    def job(self, job_id: str) -> TrainingJob:
        """A job by its id, whoever started it.

        Raises:
            JobNotFound: There is none, or it was forgotten.
        """
        connection = only(self._connections)
        return TrainingJob(connection, job_id, ask(connection, JobRequests.get(job_id)).version)

    def predict(self, /, **kwargs: Any) -> Any:
        """Ask the model. Arrays in the answer are read-only views; copy one to write to it.

        Raises:
            AipodError: See :mod:`aipod.errors`; what the server raised has the same class here.
        """
        return self._call("predict", kwargs)

    def log(self, /, **kwargs: Any) -> Any:
        """The records of the latest training, or what the model's own ``log`` makes of ``name`` and the rest.

        ``after`` skips those up to a ``seq``, and ``limit`` is the most that come.
        """
        return self._call("log", kwargs)

    def submit(self, /, **kwargs: Any) -> Future[Any]:
        """Ask the model without waiting: a future of what :meth:`predict` returns, or raises.

        Arrays in ``kwargs`` are copied before this returns, but for those of :meth:`empty`. To cancel the future gives
        the call up.

        Raises:
            SerializationError: An argument cannot travel.
        """
        content = self._content(kwargs)
        return self._submitter.submit(
            content,
            self._timeouts["predict"],
            partial(decode, timed=self._timed),
            partial(self._send, "predict", content),
            again=self._retry > 0,
        )

    def map(self, inputs: Iterable[Mapping[str, Any]], in_flight: int = 64) -> Iterator[Any]:
        """What :meth:`predict` returns for each of the inputs, in their order; the first that fails ends it.

        Args:
            inputs: The keyword arguments of each call; taken as they are needed, so that there may be any number.
            in_flight: How many calls may be on their way at a time.

        Raises:
            InvalidArgument: ``in_flight`` makes no sense, or an input is no dictionary.
        """
        return mapped(self.submit, inputs, take_in_flight(in_flight))

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> NDArray[Any]:
        """An array to be filled and sent, uninitialised.

        Where the server is on the same host it lies in memory that both share, and a call that has it among its
        arguments copies nothing: do not write to it before the call is answered. Elsewhere it is an ordinary array.

        Raises:
            InvalidArgument: There is no array of that shape or dtype, or it could not travel.
        """
        lengths, kind = take_shape(shape), take_dtype(dtype)
        for connection in self._connections:
            array = connection.empty(lengths, kind) if connection.connect(CONNECT_SECONDS) else None
            if array is not None:
                return array
        return np.empty(lengths, kind)

    def connect(self, timeout: float = CONNECT_SECONDS) -> bool:
        """Connect now and not with the first calls; says whether calls travel together from here on.

        Nothing needs it: what a benchmark measures, and what a user waits for first, is better without the beginning.
        """
        return self._route.connect(timeout)

    def close(self) -> None:
        """Close the connection, that of every variant too; a second time does nothing."""
        self._submitter.close()
        self._route.close()
        self._submitter.join()

    def _targets(self) -> Sequence[Connection]:
        return self._route.order() if isinstance(self._route, Route) else self._connections

    def _call(self, method: str, kwargs: dict[str, Any]) -> Any:
        return self._send(method, self._content(kwargs), self._timeouts[method])

    def _send(self, method: str, content: Content, timeout: float | None) -> Any:
        attempts = Attempts(method, timeout, self._retry)
        while True:
            try:
                return decode(self._route.call(method, content, timeout), self._timed)
            except AipodError as error:
                pause = attempts.pause(error)
            self._route.pause(pause)
            timeout = attempts.timeout()
