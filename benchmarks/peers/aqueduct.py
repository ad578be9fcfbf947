"""Aqueduct: a flow of processes behind a server of one's own, here aiohttp as its examples have it."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aqueduct import BaseTask, BaseTaskHandler, Flow, FlowStep
from aqueduct.integrations.aiohttp import FLOW_NAME, AppIntegrator

from benchmarks import work
from benchmarks.order import Order
from benchmarks.peers import Raw, bodies, http

_PATH = "/predict"
_MOST_BYTES = 2**30


def blocking(order: Order) -> Callable[[], Any]:
    return http.blocking(order, _PATH)


async def awaiting(order: Order) -> Callable[[], Awaitable[Any]]:
    return await http.awaiting(order, _PATH)


def raw(order: Order) -> Raw:
    return http.raw(order, _PATH)


class Task(BaseTask):
    def __init__(self, data: Any = None) -> None:
        super().__init__()
        self.data = data
        self.answer: Any = None


class Tiny(BaseTaskHandler):
    def handle(self, *tasks: Task) -> None:
        for task in tasks:
            task.answer = work.predict(**task.data)


class Batch(BaseTaskHandler):
    def handle(self, *tasks: Task) -> None:
        for task, answer in zip(tasks, work.predict_batch([task.data["x"] for task in tasks]), strict=True):
            task.answer = answer


class Sum(BaseTaskHandler):
    def handle(self, *tasks: Task) -> None:
        for task in tasks:
            _, task.answer = work.predict_sum(bodies.unpack_array(task.data))


class View(web.View):
    async def post(self) -> web.Response:
        task = Task(json.loads(await self.request.read()))
        await self.request.app[FLOW_NAME].process(task)
        return web.json_response(task.answer)


class ArrayView(web.View):
    async def post(self) -> web.Response:
        task = Task()
        await task.share_value_with_data("data", self.request.content, self.request.content_length)
        await self.request.app[FLOW_NAME].process(task)
        return web.Response(body=bodies.pack_sum(bodies.unpack_array(task.data), task.answer))


async def application(asked: str, workers: int) -> web.Application:
    """Made on the event loop, since the flow belongs to the one that it is made on."""
    step = FlowStep({"tiny": Tiny, "batch": Batch, "sum": Sum}[asked](), nprocs=workers)
    if asked == "batch":
        step.batch_size = work.BATCH_SIZE
    app = web.Application(client_max_size=_MOST_BYTES)
    app.router.add_view(_PATH, ArrayView if asked == "sum" else View)
    AppIntegrator(app).add_flow(Flow(step))
    return app


def serve(asked: str, port: str, workers: str) -> None:
    web.run_app(application(asked, int(workers)), host="127.0.0.1", port=int(port), access_log=None, print=None)


if __name__ == "__main__":
    serve(*sys.argv[1:])
