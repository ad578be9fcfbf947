"""``aipod stop``: have a training finish early, and publish what it has."""

from __future__ import annotations

import click

from aipod.cli.client import address_option, connected, job_of, json_option, version_option
from aipod.cli.json_text import to_json
from aipod.cli.records import state_line

__all__ = ["stop"]


@click.command()
@click.argument("job_id", metavar="ID")
@address_option
@version_option
@json_option
def stop(job_id: str, address: str | None, version: str, as_json: bool) -> None:
    """Ask a training to finish early; what the model returns then is published and served.

    ID is one that aipod jobs lists, or latest: the version's latest job.

    \b
      aipod stop 'v1@20260102T030405000000Z-0a1b'
      aipod stop latest -v v1

    It returns at once. The model finishes when it next looks at self.stopping; one that never looks goes on to its
    end. A job that has ended stays as it is. To discard what it made there is aipod cancel.
    """
    with connected(address, version) as client:
        info = job_of(client, job_id).stop()
    click.echo(to_json(info._asdict()).encode() if as_json else state_line(info))
