"""``aipod revisions``: what a version was, and what it is."""

from __future__ import annotations

import click

from aipod.cli.client import address_option, connected, json_option, version_option
from aipod.cli.json_text import to_json
from aipod.cli.records import metrics_text
from aipod.cli.text import moment, size, table
from aipod.rpc.admin_client import RevisionInfo

__all__ = ["revisions"]

_HEAD = ("REVISION", "LIVE", "CREATED", "ORIGIN", "PARENT", "SIZE", "METRICS")


@click.command()
@address_option
@version_option
@json_option
def revisions(address: str | None, version: str, as_json: bool) -> None:
    """List the revisions of a version that are kept, the oldest first.

    \b
      aipod revisions -v v1
      aipod revisions -v v1 --json | jq 'max_by(.metrics.accuracy).number'

    LIVE is the one that serves; ORIGIN is what made it, initialize, train, adopted or imported; METRICS are the numbers
    in what train returned. With --json there is one array of objects, which have parameters and job as well.
    aipod rollback makes another one live, aipod diff compares two.
    """
    with connected(address, version) as client:
        found = client.admin.revisions(version)
    if as_json:
        click.echo(to_json([one._asdict() for one in found]).encode())
    else:
        click.echo(table(_HEAD, map(_row, found)))


def _row(one: RevisionInfo) -> tuple[str, ...]:
    return (
        str(one.number),
        "*" if one.live else "",
        moment(one.created),
        one.origin,
        str(one.parent) if one.parent else "",
        size(one.size_bytes),
        metrics_text(one.metrics),
    )
