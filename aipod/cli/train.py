"""``aipod train``: one training, followed to its end, or left to itself."""

from __future__ import annotations

import secrets
import sys
from contextlib import suppress
from typing import Any

import click

from aipod.cli.arguments import call_arguments
from aipod.cli.client import address_option, command_line, connected, version_option
from aipod.cli.display import ERASE, Bar, Display, Lines
from aipod.cli.json_text import to_json
from aipod.cli.records import state_line
from aipod.rpc.client import AIClient, TrainingJob

__all__ = ["train"]

_INTERRUPTED = 130


@click.command()
@address_option
@version_option
@call_arguments
@click.option("--detach", is_flag=True, help="Print the job's id, and do not wait.")
@click.option("--cancel-on-interrupt", is_flag=True, help="Have Ctrl-C cancel the training, not only leave it.")
@click.option("--bar/--no-bar", default=None, help="A bar, or plain lines; else a bar where stderr is a terminal.")
@click.option("--request-id", metavar="TEXT", help="Another train with the same one is the same job.")
def train(
    address: str | None,
    version: str,
    kwargs: dict[str, Any],
    detach: bool,
    cancel_on_interrupt: bool,
    bar: bool | None,
    request_id: str | None,
) -> None:
    """Train a version, show how far it is, and print what the model returns, as JSON.

    \b
      aipod train -v v1 --json '{"epochs": 20}'
      aipod train -v v1 --array images=images.npy | jq .accuracy
      aipod train -v v1 --detach              # prints the job's id
      aipod log -f -v v1                      # follows it from anywhere

    The training is a job of the server's: it goes on when the connection breaks, and so does this command when the
    server is back. Ctrl-C leaves the job running and says how to follow and to cancel it; with --cancel-on-interrupt
    it cancels, waits for the end, and a second Ctrl-C leaves it to that.

    On a terminal there is a bar with stage, metrics and time left, as far as the model's records tell them; elsewhere
    each record is a line. Both go to stderr, the value alone to stdout. Arguments are given as for aipod predict.

    \b
    Exit codes:
      0    it succeeded and its revision serves; or with --detach it is queued
      1    it failed or was cancelled, or the version is being trained already
      2    the command line or a setting makes no sense
      130  Ctrl-C: it goes on, or was cancelled if that was wanted
    """
    live = sys.stderr.isatty() if bar is None else bar
    with connected(address, version, ERASE if live else "") as client:
        job = _start(client, kwargs, request_id or secrets.token_hex(8), cancel_on_interrupt, address)
        if detach:
            click.echo(job.id)
            return
        try:
            value = _follow(job, Bar() if live else Lines())
        except KeyboardInterrupt:
            _interrupted(job, cancel_on_interrupt, address)
        # As bytes: JSON is UTF-8 whatever the locale says.
        click.echo(to_json(value).encode())


def _start(
    client: AIClient, kwargs: dict[str, Any], request_id: str, cancel_on_interrupt: bool, address: str | None
) -> TrainingJob:
    try:
        return client.options(request_id=request_id).start_training(**kwargs)
    except KeyboardInterrupt:
        # Whether it has begun is not known, and who it would be is.
        found = [job.id for job in client.jobs(client.version) if job.request_id == request_id]
        if found:
            _interrupted(client.job(found[0]), cancel_on_interrupt, address)
        click.echo("aipod: interrupted before the training was there", err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from None


def _follow(job: TrainingJob, display: Display) -> Any:
    with display:
        for record in job.logs(follow=True, on_state=display.tell):
            display.add(record)
    value = job.result()
    click.echo(state_line(job.info()), err=True)
    return value


def _interrupted(job: TrainingJob, cancel: bool, address: str | None) -> None:
    """Leave a job running, or see it cancelled.

    Raises:
        Exit: Always.
    """
    if cancel:
        job.cancel()
        click.echo(f"aipod: cancelling {job.id}; Ctrl-C again leaves it to that", err=True)
        with suppress(KeyboardInterrupt):
            click.echo(state_line(job.wait()), err=True)
    else:
        follow = command_line("log", "-f", "--job", job.id, address=address)
        end = command_line("cancel", job.id, address=address)
        click.echo(f"aipod: the training goes on; to follow it: {follow}; to cancel it: {end}", err=True)
    raise click.exceptions.Exit(_INTERRUPTED)
