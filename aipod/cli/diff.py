"""``aipod diff``: in what two revisions differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from aipod.cli.client import address_option, connected, json_option, version_option
from aipod.cli.json_text import to_json
from aipod.cli.text import cut, number, table
from aipod.errors import InvalidArgument
from aipod.rpc.admin_client import RevisionInfo

__all__ = ["diff"]

_VALUE_COLUMNS = 40
_NUMBER = click.IntRange(min=1)

# By name: what the one has, and what the other has; None is nothing.
Pairs = dict[str, tuple[Any, Any]]


@click.command()
@click.argument("one", metavar="REVISION", type=_NUMBER)
@click.argument("other", metavar="REVISION", type=_NUMBER)
@address_option
@version_option
@json_option
def diff(one: int, other: int, address: str | None, version: str, as_json: bool) -> None:
    """Compare what two revisions were made with, and what came of it.

    \b
      aipod diff 2 3 -v v1
      aipod diff 2 3 -v v1 --json | jq .metrics.accuracy

    Only what differs is shown: parameters, as far as JSON can hold them, and metrics, the numbers in what train
    returned. With --json each is an object from names to [the first's, the second's], null where there is none.
    """
    with connected(address, version) as client:
        found = {each.number: each for each in client.admin.revisions(version)}
    first, second = _pick(found, one, version), _pick(found, other, version)
    parameters = _differences(first.parameters, second.parameters)
    metrics = _differences(first.metrics, second.metrics)
    if as_json:
        click.echo(to_json({"parameters": parameters, "metrics": metrics}).encode())
    elif parameters or metrics:
        click.echo(table(("", str(one), str(other), "CHANGE"), _rows(parameters, metrics)))
    else:
        click.echo(f"revisions {one} and {other} have the same parameters and metrics")


def _pick(found: Mapping[int, RevisionInfo], wanted: int, version: str) -> RevisionInfo:
    if wanted in found:
        return found[wanted]
    raise InvalidArgument(f"version {version!r} has no revision {wanted}; it has {', '.join(map(str, found))}")


def _differences(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> Pairs:
    one, other = one or {}, other or {}
    pairs = {name: (one.get(name), other.get(name)) for name in [*one, *(name for name in other if name not in one)]}
    # As text, where 1 and True are not the same.
    return {name: pair for name, pair in pairs.items() if to_json(pair[0]) != to_json(pair[1])}


def _rows(parameters: Pairs, metrics: Pairs) -> Sequence[tuple[str, ...]]:
    rows = [(f"parameter {name}", _shown(one), _shown(other), "") for name, (one, other) in parameters.items()]
    for name, (one, other) in metrics.items():
        change = "" if one is None or other is None else f"{other - one:+.4g}"
        rows.append((f"metric {name}", _shown(one), _shown(other), change))
    return rows


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return number(value) if isinstance(value, float) else cut(to_json(value), _VALUE_COLUMNS)
