"""``aipod rollback``: make another revision live."""

from __future__ import annotations

import click

from aipod.cli.client import address_option, connected, json_option, version_option
from aipod.cli.json_text import to_json

__all__ = ["rollback"]


@click.command()
@click.argument("revision", required=False, type=click.IntRange(min=1))
@address_option
@version_option
@json_option
def rollback(revision: int | None, address: str | None, version: str, as_json: bool) -> None:
    """Serve another REVISION of a version: the newest below the live one, unless you name one.

    \b
      aipod rollback -v v1
      aipod rollback 3 -v v1      # also forward again

    It is loaded before the live one is let go, so no call fails, and the command returns when it serves. One that does
    not load leaves everything as it was.
    """
    with connected(address, version) as client:
        live = client.admin.rollback(version, revision)
    click.echo(
        to_json({"version": version, "revision": live}).encode()
        if as_json
        else f"revision {live} of version {version!r} is live"
    )
