"""What a child runs first. It is a script, and imports nothing of ours before it knows where that lies."""

from __future__ import annotations

import json
import socket
import sys


def begin() -> None:
    """Take over the path of the process that started this one, and be its child.

    The arguments are the number of the socket and, for whoever looks at a list of processes, what this is.
    """
    sock = socket.socket(fileno=int(sys.argv[1]))
    with sock.makefile("rb", buffering=0) as lines:
        # One byte after the other, since what follows the line is for others.
        line = b"".join(iter(lambda: lines.read(1).strip(b"\n"), b""))
    order = json.loads(line)
    sys.path[:] = order["path"]
    sys.argv[1:] = []

    from aipod.engine.child.host import run  # noqa: PLC0415 - not to be found before

    run(sock, order["shared_memory_socket"], order["shared_memory_bytes"])


if __name__ == "__main__":
    begin()
