"""Where a command finds its server, and the job that it is about: one set of options for all that talk to one."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from aipod.config import Flagged, Settings
from aipod.errors import InvalidArgument
from aipod.rpc.client import AIClient, TrainingJob

__all__ = [
    "LATEST",
    "address_option",
    "command_line",
    "connected",
    "job_of",
    "json_option",
    "version_option",
]

# No job has it for its id.
LATEST = "latest"

address_option = click.option(
    "-a", "--address", metavar="HOST:PORT", help="The server (AIPOD_ADDRESS, localhost:50051)."
)
version_option = click.option("-v", "--version", default="default", show_default=True, help="The version.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON in one line, for machines.")


@contextmanager
def connected(address: str | None, version: str, before_warnings: str = "") -> Iterator[AIClient]:
    """A client for what the flags say, or else the environment.

    Args:
        before_warnings: Goes before each line that the client has to say of its own accord.

    Raises:
        ConfigError: A setting makes no sense.
        InvalidArgument: The version is none.
    """
    logging.basicConfig(format=f"{before_warnings}aipod: %(message)s", stream=sys.stderr)
    settings = Settings.load(address=Flagged("--address", address) if address is not None else None)
    with AIClient(settings.address, version, max_message_bytes=settings.max_message_bytes) as client:
        yield client


def job_of(client: AIClient, job_id: str) -> TrainingJob:
    """The job with this id, or the latest of the client's version.

    Raises:
        JobNotFound: There is none, or it was forgotten.
        InvalidArgument: The version has no jobs.
    """
    if job_id != LATEST:
        return client.job(job_id)
    jobs = client.jobs(client.version)
    if not jobs:
        raise InvalidArgument(f"version {client.version!r} has no training jobs; aipod jobs lists those there are")
    return client.job(jobs[-1].id)


def command_line(*words: str, address: str | None) -> str:
    """A command as somebody may type it, for the same server."""
    flags = ["-a", address] if address is not None else []
    return shlex.join(["aipod", *words, *flags])
