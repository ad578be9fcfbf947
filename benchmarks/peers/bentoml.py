"""BentoML: services of Starlette in processes of its own; batches by an adaptive dispatcher.

Its own interface carries an array as JSON or as a file on disk; so arrays have a route of Starlette beside it, as its
documentation shows for what it does not do itself.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from benchmarks import work
from benchmarks.order import Order
from benchmarks.peers import Raw, bodies, http

_PATH = "/predict"
_ARRAYS = Starlette()


def blocking(order: Order) -> Callable[[], Any]:
    return http.blocking(order, _PATH, listed=True)


async def awaiting(order: Order) -> Callable[[], Awaitable[Any]]:
    return await http.awaiting(order, _PATH, listed=True)


def raw(order: Order) -> Raw:
    return http.raw(order, _PATH, listed=True)


@bentoml.service
class Tiny:
    @bentoml.api
    def predict(self, x: float, name: str, values: list[int]) -> float:
        return work.predict(x, name, values)


@bentoml.service
class Batch:
    @bentoml.api(batchable=True, max_batch_size=work.BATCH_SIZE)
    def predict(self, x: list[float]) -> list[float]:
        return work.predict_batch(x)


@bentoml.service
@bentoml.asgi_app(_ARRAYS)
class Sum:
    pass


async def predict_sum(request: Request) -> Response:
    return Response(bodies.pack_sum(*work.predict_sum(bodies.unpack_array(await request.body()))))


_ARRAYS.add_route(_PATH, predict_sum, methods=["POST"])


def serve(asked: str, port: str, workers: str) -> None:
    """Become ``bentoml serve``, which is how its services are run."""
    service = f"benchmarks.peers.bentoml:{asked.capitalize()}"
    os.environ.update(BENTOML_HOME=os.getcwd(), BENTOML_DO_NOT_TRACK="True")
    root = Path(__file__).parents[2]
    command = ["serve", service, "--host", "127.0.0.1", "--port", port, "--working-dir", str(root)]
    bento = Path(sys.executable).with_name("bentoml")
    os.execv(bento, [str(bento), *command])


if __name__ == "__main__":
    serve(*sys.argv[1:])
