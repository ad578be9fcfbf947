"""A training, the SIGKILL of its server in the middle of it, and what becomes of both.

It ends with 0 if every promise was kept. ``python run.py other_model.py:Class`` does it with another model.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from aipod.rpc.client import AIClient

HERE = Path(__file__).parent
EPOCHS = 40
# After that many the server is killed.
KILLED_AT = 10


def serve(target: str, data: str, port: int = 0) -> tuple[subprocess.Popen[str], int]:
    """Start ``aipod serve``; gives the process and its port."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("AIPOD_")}
    flags = ["--host", "127.0.0.1", "--port", str(port), "--data-path", data, "--log-level", "ERROR"]
    command = [sys.executable, "-m", "aipod", "serve", target, *flags]
    process = subprocess.Popen(command, env={**mine, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    greeting = process.stdout.readline()
    if not greeting:
        raise SystemExit("the server did not start")
    return process, int(greeting.rpartition(":")[2])


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def main(target: str) -> int:
    with tempfile.TemporaryDirectory(prefix="aipod-resume-") as data:
        server, port = serve(target, data)
        try:
            with AIClient(f"127.0.0.1:{port}", version="v1") as client:
                client.initialize(seed=1)
                job = client.start_training(epochs=EPOCHS)
                epochs = []
                # One loop, over the kill: it loses its server and finds it again.
                for record in job.logs(follow=True):
                    epochs.append(record["data"]["epoch"])
                    if epochs[-1] == KILLED_AT:
                        end(server)
                        say("SIGKILL", f"the server is gone, and the training with it, after epoch {KILLED_AT}")
                        server, _ = serve(target, data, port)
                return report(job.info().state, job.result(), epochs)
        finally:
            end(server)


def report(state: str, value: dict[str, float], epochs: list[int]) -> int:
    say("job", f"{state} under the same id, resumed after epoch {value['resumed_at']} of {EPOCHS}")
    again = len(epochs) - len(set(epochs))
    say("epochs", f"{len(epochs)} in the log, {again} of them trained twice")
    say("accuracy", f"{value['accuracy']:.3f}")
    kept = state == "succeeded" and value["resumed_at"] >= KILLED_AT and not again and epochs[-1] == EPOCHS
    say("", "every promise kept" if kept else "BROKEN")
    return 0 if kept else 1


def say(topic: str, text: str) -> None:
    print(f"{topic:10}{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or [f"{HERE / 'model.py'}:Spirals"]))
