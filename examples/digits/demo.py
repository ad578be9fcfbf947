"""The life of a model behind AIPOD, on real data, in less than a minute. ``make demo`` runs it.

It ends with 0 if every promise was kept.
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Any

import numpy as np
from backstage import ServerProcess, Traffic, train
from model import HELD_OUT
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from aipod.errors import InvalidArgument
from aipod.rpc.client import AIClient

MARGIN = 10
THREADS = 4
# How "small" is trained at first, and then for longer.
SHORT, LONG = 5, 40


class Demo:
    """One run: its clients, the images that no training has seen, and the promises that were broken."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.small = AIClient(server.address, version="small")
        self.large = AIClient(server.address, version="large")
        images, labels = load_digits(return_X_y=True)
        self.images: NDArray[np.float64] = images[HELD_OUT:]
        self.labels: NDArray[np.int64] = labels[HELD_OUT:]
        self.broken: list[str] = []

    def run(self) -> None:
        self.make_two_versions()
        self.first_accuracy = self.compare()
        self.measure()
        self.retrain_under_load()
        self.swap_in_a_pool_of_one()
        self.roll_back()
        self.cancel_a_training()
        self.kill_a_training()
        self.ask_nonsense()
        self.small.close()
        self.large.close()
        self.stop()

    def make_two_versions(self) -> None:
        for client, epochs, parameters in (
            (self.small, SHORT, {"layers": [16], "seed": 1}),
            (self.large, 20, {"layers": [64, 32], "alpha": 0.001}),
        ):
            client.initialize(**parameters)
            say(client.version, f"initialised with {parameters}, training for {epochs} epochs")
            train(client, epochs, margin=" " * MARGIN)

    def compare(self) -> float:
        small, large = self.accuracy(self.small), self.accuracy(self.large)
        say("accuracy", f"small {small:.3f}, large {large:.3f}, on {len(self.labels)} images that neither has seen")
        self.promise(0.5 < small < large, "the larger network reads better")
        return small

    def measure(self) -> None:
        times = []
        for image in self.images[:200]:
            before = time.perf_counter()
            self.small.predict(images=[image])
            times.append(time.perf_counter() - before)
        say("latency", f"{1000 * median(times):.2f} ms to read one image (median of {len(times)} calls)")

    def retrain_under_load(self) -> None:
        say("retrain", f"small for {LONG} epochs instead of {SHORT}, while {THREADS} threads go on asking it")
        images = self.images[:50]
        before = self.live("small"), self.digits(self.small, images)
        with Traffic(self.small, images, THREADS) as traffic:
            self.small.train(epochs=LONG)
        after = self.live("small"), self.digits(self.small, images)

        everything = [answer for answers in traffic.answers for answer in answers]
        old, new = everything.count((SHORT, before[1])), everything.count((LONG, after[1]))
        others = len(everything) - old - new
        say("", f"calls: {len(everything) + len(traffic.failures)}, failed calls: {len(traffic.failures)}")
        say("", f"answered by revision {before[0]}: {old}, by revision {after[0]}: {new}, by anything else: {others}")
        say("", f"accuracy {self.first_accuracy:.3f} before, {self.accuracy(self.small):.3f} after")
        self.promise(not traffic.failures, "no call fails while a version is retrained")
        self.promise(old > 0 and new > 0 and not others, "every answer is of the old or of the new revision")
        in_order = all(answers == sorted(answers, key=lambda answer: answer[0]) for answers in traffic.answers)
        self.promise(in_order, "nobody who was answered by the new revision is answered by the old one again")

    def swap_in_a_pool_of_one(self) -> None:
        before = self.small.admin.statistics().pool
        clients = [self.large, self.small] * 5
        for client in clients:
            client.predict(images=self.images[:1])
        after = self.small.admin.statistics().pool
        loads, evictions = after.loads - before.loads, after.evictions - before.evictions
        say("pool", f"room for {after.capacity}; {len(clients)} calls to large and small in turn:")
        say("", f"loads: {loads}, evictions: {evictions}")
        self.promise(loads == evictions == len(clients), "a pool of one holds one, and each call finds its version")

    def roll_back(self) -> None:
        revision = self.small.admin.rollback("small")
        accuracy = self.accuracy(self.small)
        say("rollback", f"small is revision {revision} again, accuracy {accuracy:.3f}")
        self.promise(accuracy == self.first_accuracy, "a rollback brings back what was")

    def cancel_a_training(self) -> None:
        before = self.revisions()
        job = self.small.start_training(epochs=LONG)
        next(job.logs(follow=True))
        job.cancel()
        info = job.wait()
        say("cancel", f"small is trained again, and that is cancelled after its first epoch: the job is {info.state}")
        self.promise(info.state == "cancelled", "a training that is cancelled ends so")
        self.promise(self.revisions() == before, "a training that is cancelled publishes nothing")

    def kill_a_training(self) -> None:
        say("kill", f"small for {LONG} epochs once more, while {THREADS} threads go on asking it")
        images, live = self.images[:50], self.live("small")
        old = self.epochs_answering(), self.digits(self.small, images)
        with Traffic(self.small, images, THREADS) as traffic:
            job = self.small.start_training(epochs=LONG)
            epoch = next(record["data"]["epoch"] for record in job.logs(follow=True) if record["progress"] > 20)
            self.server.kill_children()
            info = job.wait()
        everything = [answer for answers in traffic.answers for answer in answers]
        say("SIGKILL", f"the process that trains is gone after epoch {epoch}; the job is {info.state}:")
        say("", info.reason.partition(" failed: ")[2])
        others = len(everything) - everything.count(old)
        say("", f"calls: {len(everything) + len(traffic.failures)}, failed calls: {len(traffic.failures)}")
        say("", f"answered by revision {live}: {everything.count(old)}, by anything else: {others}")
        self.promise(info.state == "failed" and "SIGKILL" in info.reason, "a training that is killed says by what")
        self.promise(not traffic.failures and not others, "the old revision answers on, whatever becomes of a training")
        self.promise(self.live("small") == live, "a training that is killed publishes nothing")

    def ask_nonsense(self) -> None:
        try:
            self.small.predict(images=np.zeros((3, 5)))
        except InvalidArgument as error:
            say("nonsense", f"{type(error).__name__}: {error}")
        else:
            self.promise(False, "nonsense is refused")

    def stop(self) -> None:
        before = time.monotonic()
        code = self.server.terminate()
        say("SIGTERM", f"drained and gone in {time.monotonic() - before:.1f} s, exit code {code}")
        self.promise(code == 0, "a server that is told to end ends with 0")

    def accuracy(self, client: AIClient) -> float:
        return float(np.mean(np.array(self.digits(client, self.images)) == self.labels))

    def digits(self, client: AIClient, images: NDArray[Any]) -> list[int]:
        found: list[int] = client.predict(images=images)["digits"].tolist()
        return found

    def epochs_answering(self) -> int:
        return int(self.small.predict(images=self.images[:1])["epochs"])

    def revisions(self) -> list[int]:
        return [revision.number for revision in self.small.admin.revisions("small")]

    def live(self, version: str) -> int:
        return next(one.revision for one in self.small.admin.versions() if one.version == version)

    def promise(self, kept: bool, what: str) -> None:
        if not kept:
            self.broken.append(what)


def say(topic: str, text: str) -> None:
    print(f"{topic:{MARGIN}}{text}", flush=True)


def main() -> int:
    started = time.monotonic()
    with ServerProcess(model_pool_size="1") as server:
        say("server", f"ready in {server.seconds_to_start:.1f} s, a process of its own on {server.address}")
        demo = Demo(server)
        demo.run()
    for what in demo.broken:
        say("BROKEN", what)
    if not demo.broken:
        say("", f"every promise kept, in {time.monotonic() - started:.0f} s")
    return 1 if demo.broken else 0


if __name__ == "__main__":
    sys.exit(main())
