"""Clients that connect and do nothing: ``python idlers.py ADDRESS COUNT``. They stay until their input is closed."""

from __future__ import annotations

import sys

from aipod.rpc.client import AIClient

if __name__ == "__main__":
    address, count = sys.argv[1], int(sys.argv[2])
    clients = [AIClient(address, "v") for _ in range(count)]
    assert all(client.connect(60.0) for client in clients)
    print("connected", flush=True)
    sys.stdin.read()
    # Nobody forgot them.
    assert all(client.predict(x=1) == {"x": 1} for client in clients)
    for client in clients:
        client.close()
    print("done", flush=True)
