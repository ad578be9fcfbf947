"""Clients that connect, and do nothing until their input ends. ``python -m benchmarks.idlers ADDRESS COUNT``"""

from __future__ import annotations

import resource
import sys

from aipod.rpc.client import AIClient


def main(address: str, count: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    clients = [AIClient(address) for _ in range(count)]
    print(sum(client.connect(60.0) for client in clients), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
