"""A training job, seen from a client: it lives on the server, and whoever knows its id finds it again.

::

    job = client.start_training(epochs=20)
    for record in job.logs(follow=True):
        print(record["progress"])
    value = job.result()
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any, TypeVar

from aipod.codec import Message, read_reply
from aipod.errors import AipodError, NotSupportedError
from aipod.rpc.admin_client import Admin, AsyncAdmin
from aipod.rpc.arguments import DEFAULT_RETRY, take_timeout
from aipod.rpc.calls import REPLY_LIMITS, Attempts, Content, Timed, decode
from aipod.rpc.connection import ASYNC_FAILURES, FAILURES, AsyncConnection, Connection
from aipod.rpc.job_calls import Following, JobInfo, JobRequest, JobRequests, Record, Starting, ended_well, timings
from aipod.rpc.methods import FOLLOW, JOBS
from aipod.rpc.trunk.request import Reply

__all__ = [
    "AsyncTrainingJob",
    "JobInfo",
    "TrainingJob",
    "ask",
    "async_ask",
    "async_begin",
    "async_train",
    "begin",
    "started",
    "train",
]

_TIMEOUT = 60.0

R = TypeVar("R")


class TrainingJob:
    """A job that a client started, or found. It goes on whatever becomes of this object.

    Whatever is asked is asked again where the connection breaks, or the server is away.

    Attributes:
        id: Finds it again, from any client: ``client.job(id)``.
        version: What is trained.
    """

    def __init__(self, connection: Connection, job_id: str, version: str) -> None:
        self._connection = connection
        self.id = job_id
        self.version = version

    def __repr__(self) -> str:
        return f"<TrainingJob {self.id!r}>"

    @property
    def state(self) -> str:
        """queued, running, cancelling, succeeded, failed, cancelled or interrupted; asked of the server each time."""
        return self.info().state

    @property
    def progress(self) -> float | None:
        """What the latest record says, 0 to 100 by custom; None if there is none yet; asked of the server each time."""
        return _progress(self.info())

    def info(self) -> JobInfo:
        """All that is known of it.

        Raises:
            JobNotFound: It was forgotten: of a version only the latest jobs are kept.
        """
        return ask(self._connection, JobRequests.get(self.id))

    def logs(
        self, follow: bool = False, after: int = 0, on_state: Callable[[JobInfo], object] = lambda info: None
    ) -> Iterator[Record]:
        """Its records in order, each once: those that are there, or with ``follow`` all until it has ended.

        Args:
            after: The ``seq`` of the last record that is known already.
            on_state: Called with how it stands: at first, when that changes, and every few seconds, by whoever takes
                the records.
        """
        return self._follow(Following(self.id, None, after, once=not follow, on_state=on_state))

    def output(self) -> str:
        """What the model printed, as far as it was kept."""
        return ask(self._connection, JobRequests.output(self.id))

    def wait(self, timeout: float | None = None) -> JobInfo:
        """Return when it has ended, well or not.

        Raises:
            DeadlineExceeded: It has not within ``timeout`` seconds, and goes on.
        """
        return self._wait(take_timeout(timeout))

    def result(self, timeout: float | None = None) -> Any:
        """What the model's ``train`` returned, once it has ended and the new revision serves.

        Raises:
            TrainingCancelled: Somebody cancelled it.
            TrainingFailed: Its process died, or took too long; or its server did, and the model cannot resume.
            AipodError: What the model raised.
            DeadlineExceeded: It has not ended within ``timeout`` seconds, and goes on.
        """
        return self.finish(take_timeout(timeout))[1]

    def cancel(self) -> JobInfo:
        """End it and discard what it made. Returns at once: the model is asked first, and then made to."""
        return ask(self._connection, JobRequests.cancel(self.id))

    def stop(self) -> JobInfo:
        """Ask the model to finish early; what it returns is published. Returns at once."""
        return ask(self._connection, JobRequests.stop(self.id))

    def finish(self, timeout: float | None) -> tuple[JobInfo, Any]:
        """As :meth:`result`; gives with it how the job ended."""
        attempts = Attempts("job", timeout, 1)
        attempts.insist()
        info = ended_well(self._wait(timeout))
        return info, ask(self._connection, JobRequests.result(self.id), attempts)

    def _wait(self, timeout: float | None) -> JobInfo:
        following = Following(self.id, timeout, records=False)
        with closing(self._follow(following)) as nothing:
            for _ in nothing:
                pass
        return following.ended()

    def _follow(self, following: Following) -> Generator[Record, None, None]:
        while True:
            stream = None
            try:
                stream = self._connection.stub(FOLLOW)(following.request(), timeout=following.seconds)
                for data in stream:
                    yield from following.take(data)
                following.ended()
                return
            except FAILURES as failure:
                pause = following.pause(self._connection.error_of(failure))
            except AipodError as error:
                pause = following.pause(error)
            finally:
                if stream is not None:
                    stream.cancel()
            time.sleep(pause)


class AsyncTrainingJob:
    """:class:`TrainingJob` for asyncio: everything is awaited, ``await job.state`` too."""

    def __init__(self, connection: AsyncConnection, job_id: str, version: str) -> None:
        self._connection = connection
        self.id = job_id
        self.version = version

    def __repr__(self) -> str:
        return f"<AsyncTrainingJob {self.id!r}>"

    @property
    def state(self) -> Awaitable[str]:
        return self._state()

    @property
    def progress(self) -> Awaitable[float | None]:
        return self._progress()

    async def info(self) -> JobInfo:
        return await async_ask(self._connection, JobRequests.get(self.id))

    def logs(
        self, follow: bool = False, after: int = 0, on_state: Callable[[JobInfo], object] = lambda info: None
    ) -> AsyncIterator[Record]:
        return self._follow(Following(self.id, None, after, once=not follow, on_state=on_state))

    async def output(self) -> str:
        return await async_ask(self._connection, JobRequests.output(self.id))

    async def wait(self, timeout: float | None = None) -> JobInfo:
        return await self._wait(take_timeout(timeout))

    async def result(self, timeout: float | None = None) -> Any:
        return (await self.finish(take_timeout(timeout)))[1]

    async def cancel(self) -> JobInfo:
        return await async_ask(self._connection, JobRequests.cancel(self.id))

    async def stop(self) -> JobInfo:
        return await async_ask(self._connection, JobRequests.stop(self.id))

    async def _state(self) -> str:
        return (await self.info()).state

    async def _progress(self) -> float | None:
        return _progress(await self.info())

    async def finish(self, timeout: float | None) -> tuple[JobInfo, Any]:
        attempts = Attempts("job", timeout, 1)
        attempts.insist()
        info = ended_well(await self._wait(timeout))
        return info, await async_ask(self._connection, JobRequests.result(self.id), attempts)

    async def _wait(self, timeout: float | None) -> JobInfo:
        following = Following(self.id, timeout, records=False)
        async with aclosing(self._follow(following)) as nothing:
            async for _ in nothing:
                pass
        return following.ended()

    async def _follow(self, following: Following) -> AsyncGenerator[Record, None]:
        while True:
            stream = None
            try:
                stream = self._connection.stub(FOLLOW)(following.request(), timeout=following.seconds)
                async for data in stream:
                    for record in following.take(data):
                        yield record
                following.ended()
                return
            except ASYNC_FAILURES as failure:
                pause = following.pause(self._connection.error_of(failure))
            except AipodError as error:
                pause = following.pause(error)
            finally:
                if stream is not None:
                    stream.cancel()
            await asyncio.sleep(pause)


def begin(targets: Sequence[Connection], content: Content, version: str, attempts: Attempts) -> TrainingJob | Message:
    """Send a train; gives its job, or the reply of an older server, which has run it to its end."""
    starting = Starting(targets, attempts)
    while True:
        connection = starting.connection
        try:
            problem = starting.clear(Admin(connection).info()) if starting.is_in_doubt else None
            if problem is None:
                reply = _reply(connection.call("train", content, attempts.timeout()))
                return TrainingJob(connection, reply.job, version) if reply.job else reply
        except AipodError as error:
            pause = starting.pause(error)
        else:
            raise problem
        time.sleep(pause)


async def async_begin(
    targets: Sequence[AsyncConnection], content: Content, version: str, attempts: Attempts
) -> AsyncTrainingJob | Message:
    """As :func:`begin`."""
    starting = Starting(targets, attempts)
    while True:
        connection = starting.connection
        try:
            problem = starting.clear(await AsyncAdmin(connection).info()) if starting.is_in_doubt else None
            if problem is None:
                reply = _reply(await connection.call("train", content, attempts.timeout()))
                return AsyncTrainingJob(connection, reply.job, version) if reply.job else reply
        except AipodError as error:
            pause = starting.pause(error)
        else:
            raise problem
        await asyncio.sleep(pause)


def train(targets: Sequence[Connection], content: Content, version: str, attempts: Attempts, timed: bool) -> Any:
    """What a train returned, once its new revision serves."""
    begun = begin(targets, content, version, attempts)
    # It may be large, and the job may take days.
    del content
    if isinstance(begun, Message):
        return decode(begun, timed)
    info, value = begun.finish(attempts.timeout())
    return Timed(value, timings(info)) if timed else value


async def async_train(
    targets: Sequence[AsyncConnection], content: Content, version: str, attempts: Attempts, timed: bool
) -> Any:
    """As :func:`train`."""
    begun = await async_begin(targets, content, version, attempts)
    del content
    if isinstance(begun, Message):
        return decode(begun, timed)
    info, value = await begun.finish(attempts.timeout())
    return Timed(value, timings(info)) if timed else value


def ask(connection: Connection, request: JobRequest[R], attempts: Attempts | None = None) -> R:
    """Ask about jobs, again where the server is away."""
    attempts = attempts or Attempts("job", _TIMEOUT, DEFAULT_RETRY)
    data = request.message.SerializeToString()
    while True:
        try:
            return request.read(connection.stub(JOBS + request.verb)(data, timeout=attempts.timeout()))
        except FAILURES as failure:
            pause = attempts.pause(connection.error_of(failure))
        except AipodError as error:
            pause = attempts.pause(error)
        time.sleep(pause)


async def async_ask(connection: AsyncConnection, request: JobRequest[R], attempts: Attempts | None = None) -> R:
    """As :func:`ask`."""
    attempts = attempts or Attempts("job", _TIMEOUT, DEFAULT_RETRY)
    data = request.message.SerializeToString()
    while True:
        try:
            return request.read(await connection.stub(JOBS + request.verb)(data, timeout=attempts.timeout()))
        except ASYNC_FAILURES as failure:
            pause = attempts.pause(connection.error_of(failure))
        except AipodError as error:
            pause = attempts.pause(error)
        await asyncio.sleep(pause)


def started(begun: Any) -> Any:
    """The job that was begun.

    Raises:
        NotSupportedError: The server is older than jobs.
    """
    if isinstance(begun, Message):
        raise NotSupportedError("the server is older and knows no jobs: it has trained to the end; use train() there")
    return begun


def _reply(reply: Reply) -> Message:
    return reply if isinstance(reply, Message) else read_reply(reply, REPLY_LIMITS)


def _progress(info: JobInfo) -> float | None:
    progress = info.latest.get("progress") if info.latest is not None else None
    return float(progress) if isinstance(progress, (int, float)) else None
