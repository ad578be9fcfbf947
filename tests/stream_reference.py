"""What must come out of a stream, computed the slow and obvious way, and what is wrong with what did come out.

Nothing of the program is used here: windows are cut from the whole source stream, read afterwards, and each result is
computed again from the messages that it says it is of.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from stream_digest import digest

__all__ = ["Expected", "Outcome", "Sent", "count", "hopping", "judge", "judge_any_cut", "session", "sliding"]

# A window's key and id.
Name = tuple[str, str]
_MOST_SHOWN = 5


@dataclass(frozen=True)
class Sent:
    """A message as the source stream has it.

    Attributes:
        seq: Its position.
        stored: When the server stored it, in unix seconds.
        value: What was published: ``k`` is its key, ``t`` its own time, ``v`` a number, ``bad`` may mark it as poison.
    """

    seq: int
    stored: float
    value: dict[str, Any]

    @property
    def key(self) -> str:
        return str(self.value["k"])


@dataclass(frozen=True)
class Outcome:
    """What a task made of the stream.

    Attributes:
        results: The documents in its sink, in the order of that sink.
        dead: Positions in its dead letters, in their order.
    """

    results: list[dict[str, Any]]
    dead: list[int] = field(default_factory=list)


@dataclass
class Expected:
    """Every window by key and id, and the messages that are late for some (``late``) or for all (``late_for_all``)."""

    windows: dict[Name, list[int]] = field(default_factory=dict)
    late: set[int] = field(default_factory=set)
    late_for_all: set[int] = field(default_factory=set)


Reference = Callable[[list[Sent]], Expected]


def count(size: int, keyed: bool = True) -> Reference:
    return sliding(size, size, keyed)


def sliding(size: int, step: int, keyed: bool = True) -> Reference:
    """Windows of so many messages, each begun so many after the last; what is left at the end makes one more."""

    def cut(sent: list[Sent]) -> Expected:
        expected = Expected()
        for key, messages in _by_key(sent, keyed).items():
            seqs = [message.seq for message in messages]
            at = 0
            while at + size <= len(seqs):
                expected.windows[key, f"s{seqs[at]}"] = seqs[at : at + size]
                at += step
            # Messages that were in a window already make none of their own.
            seen = at - step + size if at else 0
            if seen < len(seqs):
                expected.windows[key, f"s{seqs[at]}"] = seqs[at:]
        return expected

    return cut


def hopping(size: float, step: float, lateness: float = 0.0, own_time: bool = False) -> Reference:
    """Windows of so many seconds, begun every so many, aligned to the epoch.

    By the messages' own time a window is over once a message of its key is ``lateness`` later than its end; stored
    times never run backwards, so by those nothing is late.
    """

    def cut(sent: list[Sent]) -> Expected:
        expected = Expected()
        windows: dict[Name, list[int]] = defaultdict(list)
        for key, messages in _by_key(sent).items():
            watermark = -math.inf
            for message in messages:
                moment = message.value["t"] if own_time else message.stored
                starts = _starts(moment, size, step)
                over = [start for start in starts if own_time and start + size <= watermark]
                for start in starts:
                    if start not in over:
                        windows[key, f"t{round(start * 1e6)}"].append(message.seq)
                if over:
                    expected.late.add(message.seq)
                if len(over) == len(starts):
                    expected.late_for_all.add(message.seq)
                watermark = max(watermark, moment - lateness)
        expected.windows = dict(windows)
        return expected

    return cut


def session(gap: float) -> Reference:
    """Messages of a key, each stored less than the gap after the one before."""

    def cut(sent: list[Sent]) -> Expected:
        expected = Expected()
        for key, messages in _by_key(sent).items():
            name, last = ("", ""), -math.inf
            for message in messages:
                if message.stored - last >= gap:
                    name = key, f"s{message.seq}"
                    expected.windows[name] = []
                expected.windows[name].append(message.seq)
                last = message.stored
        return expected

    return cut


def judge(sent: list[Sent], outcome: Outcome, reference: Reference, bad: bool = False) -> list[str]:
    """Say what is wrong, in a few lines; nothing if every window is there once, with its members and its content.

    Args:
        sent: The whole source stream.
        outcome: What is to be judged.
        reference: What must be there.
        bad: The task's model refuses messages that are marked so.
    """
    expected = reference(sent)
    found = {_name(result): _members(result) for result in outcome.results}
    poison = {message.seq for message in sent if bad and message.value.get("bad")}
    # Of a window that has nothing but poison there is no result.
    expected.windows = {name: seqs for name, seqs in expected.windows.items() if not poison.issuperset(seqs)}
    complaints = _common(sent, outcome, bad)
    complaints += _some("lost", expected.windows.keys() - found.keys())
    complaints += _some("not to be", found.keys() - expected.windows.keys())
    complaints += _some(
        "of other members",
        [
            (name, f"lacks {sorted(set(seqs) - set(found[name]))}", f"has also {sorted(set(found[name]) - set(seqs))}")
            for name, seqs in expected.windows.items()
            if name in found and found[name] != seqs
        ],
    )
    complaints += _some("dead without a reason", set(outcome.dead) - expected.late - poison)
    complaints += _some("neither in a window nor dead", (expected.late_for_all | poison) - set(outcome.dead))
    return complaints


def judge_any_cut(sent: list[Sent], outcome: Outcome, sizes: tuple[int, ...], keyed: bool = True) -> list[str]:
    """The same for count windows that the moment may cut short: each message in exactly one, each key in order.

    Args:
        sent: The whole source stream.
        outcome: What is to be judged.
        sizes: Of which a full window may be.
        keyed: False if the task has no key.
    """
    complaints = _common(sent, outcome, bad=False)
    complaints += _some("dead without a reason", outcome.dead)
    cuts = defaultdict(list)
    for result in outcome.results:
        (key, name), members = _name(result), _members(result)
        cuts[key].append(members)
        reason = result["window"]["reason"]
        length = len(members)
        sound = length in sizes if reason == "full" else length < max(sizes)
        if name != f"s{members[0]}" or not sound:
            complaints.append(f"window {key!r} {name} of {length} closed by {reason!r}")
    for key, messages in _by_key(sent, keyed).items():
        seqs = [message.seq for message in messages]
        held = Counter(seq for members in cuts[key] for seq in members)
        complaints += _some(f"lost of key {key!r}", set(seqs) - held.keys())
        complaints += _some(f"more than once of key {key!r}", [seq for seq, times in held.items() if times > 1])
        if not complaints and sorted(cuts[key]) != cuts[key]:
            complaints.append(f"windows of key {key!r} are out of order")
        if not complaints and [seq for members in sorted(cuts[key]) for seq in members] != seqs:
            complaints.append(f"windows of key {key!r} are interleaved")
    return complaints


def _common(sent: list[Sent], outcome: Outcome, bad: bool) -> list[str]:
    """What holds however windows are cut: no identity twice, nobody dead twice, every content its members'."""
    values = {message.seq: message.value for message in sent}
    identities = Counter((*_name(result), result["window"]["revision"]) for result in outcome.results)
    complaints = _some("more than once", [identity for identity, times in identities.items() if times > 1])
    complaints += _some("dead more than once", [seq for seq, times in Counter(outcome.dead).items() if times > 1])
    for result in outcome.results:
        members, dropped = _members(result), set(_expand(result["dropped"]))
        if result["window"]["count"] != len(members) or not set(members) <= values.keys():
            complaints.append(f"window {_name(result)} miscounts its members")
            continue
        if dropped != {seq for seq in members if bad and values[seq].get("bad")}:
            complaints.append(f"window {_name(result)} dropped {sorted(dropped)}")
        if result["result"] != digest(values[seq] for seq in members if seq not in dropped):
            complaints.append(f"window {_name(result)} says {result['result']}")
    return complaints[: 4 * _MOST_SHOWN]


def _starts(moment: float, size: float, step: float) -> list[float]:
    last = math.floor(moment / step)
    begun = (at * step for at in range(last, last - math.ceil(size / step) - 1, -1))
    return [start for start in begun if start <= moment < start + size]


def _by_key(sent: list[Sent], keyed: bool = True) -> dict[str, list[Sent]]:
    groups: dict[str, list[Sent]] = defaultdict(list)
    for message in sent:
        groups[message.key if keyed else ""].append(message)
    return groups


def _name(result: dict[str, Any]) -> Name:
    return result["key"], result["window"]["id"]


def _members(result: dict[str, Any]) -> list[int]:
    return _expand(result["window"]["members"])


def _expand(pairs: Iterable[tuple[int, int]]) -> list[int]:
    return [seq for first, last in pairs for seq in range(first, last + 1)]


def _some(what: str, things: Iterable[Any]) -> list[str]:
    listed = sorted(things)
    return [f"{len(listed)} {what}: {listed[:_MOST_SHOWN]}"] if listed else []
