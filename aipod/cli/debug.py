"""``--debug``, which every command takes, wherever on the line it stands."""

from __future__ import annotations

import click

__all__ = ["debug", "wanted"]

_DEBUG = "aipod.debug"


def _remember(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        ctx.meta[_DEBUG] = True


def wanted(ctx: click.Context) -> bool:
    """Whether somebody wants to see the traceback of an error."""
    return _DEBUG in ctx.meta


debug = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_remember, help="Show the traceback of an error, too."
)
