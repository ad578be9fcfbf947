"""``aipod cancel``: end a training, and discard what it made."""

from __future__ import annotations

import click

from aipod.cli.client import address_option, connected, job_of, json_option, version_option
from aipod.cli.json_text import to_json
from aipod.cli.records import state_line

__all__ = ["cancel"]


@click.command()
@click.argument("job_id", metavar="ID")
@address_option
@version_option
@json_option
def cancel(job_id: str, address: str | None, version: str, as_json: bool) -> None:
    """End a training job and discard what it made; the version stays what it is.

    ID is one that aipod jobs lists, or latest: the version's latest job.

    \b
      aipod cancel 'v1@20260102T030405000000Z-0a1b'
      aipod cancel latest -v v1

    It returns at once. The model is asked to end, and after a grace (AIPOD_TRAIN_GRACE) its process is killed;
    aipod log -f shows the end. A job that has ended stays as it is.
    """
    with connected(address, version) as client:
        info = job_of(client, job_id).cancel()
    click.echo(to_json(info._asdict()).encode() if as_json else state_line(info))
