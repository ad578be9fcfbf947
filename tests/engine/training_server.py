"""A process with an engine, for tests that kill it.

    python training_server.py DATA MODEL VERSION ARGUMENTS [SETTINGS]    prints the job's id, and waits for its end

An empty VERSION starts none, and lets go on what is there; then it prints "open".
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import trained

from aipod.engine import Engine


def main(data: str, model: str, version: str, arguments: str, settings: str = "{}") -> None:
    with Engine(getattr(trained, model), data_path=Path(data), **json.loads(settings)) as engine:
        if version:
            job = engine.trainings.start(version, json.loads(arguments))
            print(job.id, flush=True)
            engine.trainings.wait(job.id)
        else:
            print("open", flush=True)
            threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
