"""Our variables in an environment, told from those that only look like them."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Collection, Mapping

__all__ = ["find", "inherited", "suggestion"]

PREFIX = "AIPOD_"

# As difflib counts it: "port" is like "listen_port", and "nope" is not like "load_pause".
_LIKENESS = 0.5

_log = logging.getLogger("aipod.config")
# What Kubernetes gives every container for each Service: for one called "aipod" these names and AIPOD_PORT=tcp://…, for
# one called "aipod-listen" AIPOD_LISTEN_PORT=tcp://…
# (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables)
_INJECTED_NAME = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_INJECTED_VALUE = re.compile(r"(tcp|udp|sctp)://")


def inherited(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is to be started: this one's, with some changes."""
    return {**os.environ, **changes}


def find(environ: Mapping[str, str] | None, known: Collection[str]) -> dict[str, str]:
    """Take the variables called ``known`` out of an environment, and warn about others that begin like ours.

    Args:
        environ: The environment; None means this process's.
        known: The full names of the variables.
    """
    found: dict[str, str] = {}
    injected: list[str] = []
    for name, value in sorted((os.environ if environ is None else environ).items()):
        if not name.startswith(PREFIX):
            continue
        if _INJECTED_VALUE.match(value) or _INJECTED_NAME.fullmatch(name.removeprefix(PREFIX)):
            injected.append(name)
        elif name in known:
            found[name] = value
        else:
            _log.warning("no setting reads the environment variable %r; %s", name, suggestion(name, known))
    if injected:
        _log.warning(
            "passed over what Kubernetes set for a Service: %s; rename the Service, or turn enableServiceLinks off",
            ", ".join(injected),
        )
    return found


def suggestion(name: str, known: Collection[str]) -> str:
    """Say what somebody who wrote ``name`` can have meant, or where to look if it is like none of them."""
    # Without what all variables begin with: that would make any of them like any other.
    names = {one.removeprefix(PREFIX).casefold(): one for one in known}
    close = difflib.get_close_matches(name.removeprefix(PREFIX).casefold(), names, n=1, cutoff=_LIKENESS)
    return f"the nearest is {names[close[0]]}" if close else "the README lists those that there are"
