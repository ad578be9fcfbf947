"""A broker, a model server and consumers, each a process that can be killed, and a publisher that never gives up.

The seed of the dice is printed, and ``CHAOS_SEED`` sets it: the same dice throw the same messages and the same kills at
the same counts of messages. What a machine makes of them differs, as it should.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, StreamConfig
from nats.js.errors import KeyNotFoundError
from ports import free_port
from stream_child import Child
from stream_reference import Outcome, Sent
from waiting import BOUND

from aipod.stream.dev import DevServer

__all__ = ["PUBLISHED_AT_A_TIME", "RESULTS", "SUBJECT", "Publisher", "World", "throw_dice"]

T = TypeVar("T")

MODEL = Path(__file__).with_name("stream_digest.py")
SOURCE, RESULTS, DEAD = "EVENTS", "RESULTS", "DEAD"
SUBJECT = "events"
# How many are on their way at a time. Messages may change places within that many, and no further.
PUBLISHED_AT_A_TIME = 32


def throw_dice() -> random.Random:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    return random.Random(seed)


class World:
    """Everything, in a directory; ends with its block.

    Args:
        directory: Where all of it lives.
        dedup_window: Seconds for which the sink's stream knows a message id.
    """

    def __init__(self, directory: Path, dedup_window: float = 120.0) -> None:
        self.directory = directory
        self.broker = DevServer(directory / "broker")
        self._dedup_window = dedup_window
        self._children: list[Child] = []
        self._publishers: list[Publisher] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="world")
        self._model: Child | None = None
        self._client: Client | None = None

    def __enter__(self) -> World:
        self._thread.start()
        try:
            self.broker.start()
            self.run(self._open())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def model(self) -> Child:
        """The model server, ready; after that it is started by whoever ends it."""
        if self._model is None:
            port = free_port()
            self._model = self.child(
                *("serve", f"{MODEL}:Digest", "--host", "127.0.0.1", "--port", str(port)),
                *("--data-path", str(self.directory / "data"), "--pool-size", "4", "--workers", "8"),
                name="model",
                says="aipod: serving",
            )
            self.model_address = f"127.0.0.1:{port}"
            self._model.start()
            self._model.ready()
        return self._model

    def child(self, *arguments: str, name: str, says: str = "", **variables: str) -> Child:
        child = Child(*arguments, directory=self.directory, name=name, says=says, **variables)
        self._children.append(child)
        return child

    def consumer(self, *more: str, name: str = "consumer", file: str = "tasks.toml") -> Child:
        """``aipod stream run`` of the tasks that :meth:`write_tasks` wrote; not started."""
        return self.child("stream", "run", *([file] if file else []), *more, name=name)

    def write_tasks(self, *tasks: Mapping[str, Any], file: str = "tasks.toml", **defaults: Any) -> Path:
        """Write a file of tasks.

        Args:
            tasks: A table each.
            file: Its name in the directory.
            defaults: Over those that every test here has.
        """
        assert self.model
        path = self.directory / file
        tables = [self.task(**{**defaults, **task}) for task in tasks]
        path.write_text("".join(f"[[task]]\n{_toml(table)}\n" for table in tables))
        return path

    def task(self, **own: Any) -> dict[str, Any]:
        """A task's table, with what every task here has in common."""
        return {
            "nats": self.broker.url,
            "stream": SOURCE,
            "subjects": [f"{SUBJECT}.>"],
            "durable": own["name"],
            "ack_wait": 5.0,
            "model": self.model_address,
            "timeout": 10.0,
            "sinks": [f"nats:results.{own['name']}.{{key}}"],
            "lease_ttl": 2.0,
            **own,
        }

    def end_children(self, but: Child | None = None) -> None:
        """Kill all processes, or all but one."""
        for child in self._children:
            if child is not but:
                child.end()
        self._children = [but] if but is not None else []

    def after(self, seconds: float) -> None:
        """Let time pass where that is what happens: somebody is away for so long."""
        threading.Event().wait(seconds)

    def run(self, work: Coroutine[Any, Any, T], bound: float = 120.0) -> T:
        """Run a coroutine on the loop that has the connection."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(bound)

    @property
    def js(self) -> JetStreamContext:
        """For what is not here; its coroutines are for :meth:`run`."""
        assert self._client is not None
        return self._client.jetstream()

    def put(self, subject: str, data: bytes | dict[str, Any] = b"", **headers: str) -> int:
        """Publish one message; its position."""
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        return self.run(self.js.publish(subject, payload, headers=headers or None)).seq

    def publisher(self, values: Iterable[dict[str, Any]], rate: float = 0.0) -> Publisher:
        """Begin to publish; see :class:`Publisher`."""
        self._publishers.append(Publisher(self, list(values), rate))
        return self._publishers[-1]

    def consumer_infos(self, durable: str, stream: str = SOURCE) -> list[ConsumerInfo]:
        """What the broker says of a durable consumer, or of those of its partitions."""
        infos = self.run(self.js.consumers_info(stream))
        return [info for info in infos if info.name.rpartition("-")[0] == durable or info.name == durable]

    def caught_up(self, durable: str) -> bool:
        """Whether everything has been delivered at least once."""
        infos = self.consumer_infos(durable)
        return bool(infos) and not any(info.num_pending for info in infos)

    def ack_pending(self, durable: str, stream: str = SOURCE) -> int:
        return sum(info.num_ack_pending or 0 for info in self.consumer_infos(durable, stream))

    def holders(self, task: str) -> dict[str, str]:
        """Who holds the lease of each partition."""
        return self.run(self._holders(f"lease.{task}."))

    def messages(self, stream: str) -> int:
        return self.run(self.js.stream_info(stream)).state.messages

    def sent(self) -> list[Sent]:
        """The whole source stream."""
        return [Sent(seq, stored, json.loads(data)) for seq, stored, _, data, _ in self.run(self._read(SOURCE, ""))]

    def results(self, task: str) -> list[dict[str, Any]]:
        """What a task put into its subject, in that order."""
        return [json.loads(data) for _, _, _, data, _ in self.run(self._read(RESULTS, f"results.{task}.>"))]

    def dead(self, task: str) -> list[int]:
        """The positions of a task's dead letters."""
        return [int(headers["Aipod-Sequence"]) for headers, _ in self.letters(task)]

    def letters(self, task: str) -> list[tuple[dict[str, str], bytes]]:
        """A task's dead letters: their headers and payloads."""
        return [(headers, data) for _, _, _, data, headers in self.run(self._read(DEAD, f"dead.{task}"))]

    def outcome(self, task: str) -> Outcome:
        return Outcome(self.results(task), self.dead(task))

    def close(self) -> None:
        self.end_children()
        for publisher in self._publishers:
            publisher.stop()
        if self._client is not None:
            self.run(self._client.close())
        self.broker.kill()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        async def ignore(error: Exception) -> None:
            """Being cut off is what all of this is about."""

        self._client = await nats.connect(
            self.broker.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=ignore, connect_timeout=5
        )
        manager = self._client.jsm()
        await manager.add_stream(StreamConfig(name=SOURCE, subjects=[f"{SUBJECT}.>"]))
        await manager.add_stream(
            StreamConfig(name=RESULTS, subjects=["results.>"], duplicate_window=self._dedup_window)
        )
        # As long as that of a stream which a task makes for itself.
        await manager.add_stream(StreamConfig(name=DEAD, subjects=["dead.>"], duplicate_window=3600.0))

    async def _holders(self, prefix: str) -> dict[str, str]:
        bucket = await self.js.key_value("aipod")
        holders = {}
        for name in await bucket.keys():
            if name.startswith(prefix):
                with contextlib.suppress(KeyNotFoundError):  # given back a moment ago
                    holders[name] = json.loads((await bucket.get(name)).value or b"{}")["holder"]
        return holders

    async def _read(self, stream: str, subject: str) -> list[tuple[int, float, str, bytes, dict[str, str]]]:
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=60.0)
        reader = await self.js.pull_subscribe(subject, stream=stream, config=config)
        found = []
        info = await reader.consumer_info()
        name, left = info.name, info.num_pending or 0
        while left:
            for message in await reader.fetch(min(left, 1000), timeout=10):
                # $JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<consumer seq>.<stored, ns>.<pending>, with the domain
                # and the account before the stream on newer servers.
                *_, seq, _, stored, pending = message.reply.split(".")[: 9 if message.reply.count(".") == 8 else 11]
                found.append((int(seq), int(stored) / 1e9, message.subject, message.data, dict(message.headers or {})))
                left = int(pending)
        await reader.unsubscribe()
        await self.js.delete_consumer(stream, name)
        return found


class Publisher:
    """Publishes values in the background, each again and again under its own message id until it is acknowledged.

    Args:
        world: Whose connection it uses.
        values: One message each; ``k`` is the last token of its subject.
        rate: Messages per second at most; 0 is as fast as it goes.

    Attributes:
        done: How many are acknowledged.
    """

    def __init__(self, world: World, values: list[dict[str, Any]], rate: float) -> None:
        self.done = 0
        self.total = len(values)
        self._js = world.js
        self._rate = rate
        self._values = values
        self._run = f"{random.SystemRandom().randrange(2**32):08x}"
        self._future = asyncio.run_coroutine_threadsafe(self._publish(), world._loop)

    def wait(self, bound: float = 60.0) -> None:
        self._future.result(bound)

    def stop(self) -> None:
        """Publish no more."""
        self._future.cancel()
        with contextlib.suppress(CancelledError):
            self._future.result(BOUND)

    @property
    def running(self) -> bool:
        return not self._future.done()

    async def _publish(self) -> None:
        begin = time.monotonic()
        for at in range(0, self.total, PUBLISHED_AT_A_TIME):
            batch = self._values[at : at + PUBLISHED_AT_A_TIME]
            await asyncio.gather(*(self._one(at + number, value) for number, value in enumerate(batch)))
            self.done = at + len(batch)
            if self._rate:
                await asyncio.sleep(begin + self.done / self._rate - time.monotonic())

    async def _one(self, number: int, value: dict[str, Any]) -> None:
        headers = {"Nats-Msg-Id": f"{self._run}-{number}"}
        while True:
            try:
                await self._js.publish(
                    f"{SUBJECT}.{value['k']}", json.dumps(value).encode(), timeout=1.0, headers=headers
                )
                return
            except (NatsError, asyncio.TimeoutError):
                await asyncio.sleep(0.05)


def _toml(table: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {_value(one)}" for name, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return json.dumps(value)
