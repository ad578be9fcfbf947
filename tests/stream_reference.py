"""What must come out of a stream, computed the slow and obvious way, and what is wrong with what did come out.

Nothing of the program is used here: windows are cut from the whole source stream, read afterwards, and each result is
computed again from the messages that it says it is of.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from stream_digest import digest

__all__ = ["Expected", "Hopping", "Outcome", "Sent", "count", "judge", "judge_any_cut", "session", "sliding"]

# A result's key, window and revision.
Name = tuple[str, str, int]
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
    """Every result's members, those of one key in the order in which they must come; and who must be dead."""

    results: dict[Name, list[int]] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)


Reference = Callable[[list[Sent]], Expected]


def count(size: int, keyed: bool = True, early: int = 0) -> Reference:
    return sliding(size, size, keyed, early)


def sliding(size: int, step: int, keyed: bool = True, early: int = 0) -> Reference:
    """Windows of so many messages, each begun so many after the last; what is left at the end makes one more.

    Each is shown after every ``early`` members, too, and has one revision more then.
    """

    def cut(sent: list[Sent]) -> Expected:
        expected = Expected()

        def show(key: str, members: list[int]) -> None:
            sizes = [some for some in range(early, len(members) + 1, early) if some < size] if early else []
            for revision, some in enumerate([*sizes, len(members)]):
                expected.results[key, f"s{members[0]}", revision] = members[:some]

        for key, messages in _by_key(sent, keyed).items():
            seqs = [message.seq for message in messages]
            at = 0
            while at + size <= len(seqs):
                show(key, seqs[at : at + size])
                at += step
            # Messages that were in a window already make none of their own.
            seen = at - step + size if at else 0
            if seen < len(seqs):
                show(key, seqs[at:])
        return expected

    return cut


@dataclass(frozen=True)
class Hopping:
    """Windows of so many seconds, begun every so many, aligned to the epoch: a :data:`Reference`.

    A window is over once a message of its key is ``lateness`` later than its end, or ``wait`` after its first message
    was stored, whatever comes first; and so are then those that end before it. Stored times never run backwards, so by
    those nothing is late.

    Attributes:
        own: The field that has a message's own time; "" for when it was stored.
        amend: A message that is late for windows which there are makes each of them anew; else it is dead.
        early: Each is shown after every so many members, too.
        keys: Whose messages the task sees; all if there are none.
    """

    size: float
    step: float
    lateness: float = 0.0
    wait: float = math.inf
    own: str = ""
    amend: bool = False
    early: int = 0
    keys: tuple[str, ...] = ()

    def __call__(self, sent: list[Sent]) -> Expected:
        expected = Expected()
        for key, messages in _by_key(sent).items():
            if not self.keys or key in self.keys:
                windows = _KeysHopping(self, key, expected)
                for message in messages:
                    windows.take(message)
                windows.finish(math.inf)
        return expected

    def time(self, message: Sent) -> float:
        # No instant is finer than a microsecond: rounded, it can be in the next window.
        return round(float(message.value[self.own]) if self.own else message.stored, 6)

    def starts(self, moment: float) -> list[float]:
        last = math.floor(moment / self.step)
        begun = (at * self.step for at in range(last - math.ceil(self.size / self.step), last + 1))
        return [start for start in begun if start <= moment < start + self.size]


class _KeysHopping:
    """The windows of one key, one message after another."""

    def __init__(self, shape: Hopping, key: str, expected: Expected) -> None:
        self._shape = shape
        self._key = key
        self._expected = expected
        self._open: dict[float, list[Sent]] = {}
        self._closed: dict[float, list[int]] = {}
        self._revisions: Counter[float] = Counter()
        # What ends there or earlier is over.
        self._over = -math.inf

    def take(self, message: Sent) -> None:
        shape = self._shape
        waited = [start for start, one in self._open.items() if one[0].stored + shape.wait <= message.stored]
        self.finish(max(waited, default=-math.inf) + shape.size)
        self.finish(shape.time(message) - shape.lateness)
        starts = shape.starts(shape.time(message))
        late = [start for start in starts if start + shape.size <= self._over]
        for start in starts:
            if start not in late:
                members = self._open.setdefault(start, [])
                members.append(message)
                if shape.early and len(members) % shape.early == 0:
                    self._show(start, [member.seq for member in members])
        amended = [start for start in late if shape.amend and start in self._closed]
        for start in amended:
            self._closed[start].append(message.seq)
            self._show(start, self._closed[start])
        if late and not amended:
            self._expected.dead.add(message.seq)

    def finish(self, over: float) -> None:
        self._over = max(self._over, over)
        for start in sorted(self._open):
            if start + self._shape.size <= over:
                self._closed[start] = [member.seq for member in self._open.pop(start)]
                self._show(start, self._closed[start])

    def _show(self, start: float, members: list[int]) -> None:
        name = self._key, f"t{round(start * 1e6)}", self._revisions[start]
        self._expected.results[name] = list(members)
        self._revisions[start] += 1


def session(gap: float) -> Reference:
    """Messages of a key, each stored less than the gap after the one before."""

    def cut(sent: list[Sent]) -> Expected:
        expected = Expected()
        for key, messages in _by_key(sent).items():
            name, last = (key, "", 0), -math.inf
            for message in messages:
                if message.stored - last >= gap:
                    name = key, f"s{message.seq}", 0
                    expected.results[name] = []
                expected.results[name].append(message.seq)
                last = message.stored
        return expected

    return cut


def judge(
    sent: list[Sent], outcome: Outcome, reference: Reference, bad: bool = False, reasons: tuple[str, ...] = ()
) -> list[str]:
    """Say what is wrong, in a few lines.

    Nothing is if every result is there once, with its members and its content, after those of its key that it follows.

    Args:
        sent: The whole source stream.
        outcome: What is to be judged.
        reference: What must be there.
        bad: The task's model refuses messages that are marked so.
        reasons: Why some windows must have been closed, or else nothing was tried.
    """
    expected = reference(sent)
    found: dict[Name, list[int]] = {}
    for result in outcome.results:
        found.setdefault(_name(result), _members(result))
    poison = {message.seq for message in sent if bad and message.value.get("bad")}
    # Of a window that has nothing but poison there is no result.
    wanted = {name: seqs for name, seqs in expected.results.items() if not poison.issuperset(seqs)}
    complaints = _common(sent, outcome, bad)
    complaints += _some("lost", wanted.keys() - found.keys())
    complaints += _some("not to be", found.keys() - wanted.keys())
    complaints += _some(
        "of other members",
        [
            (name, f"lacks {sorted(set(seqs) - set(found[name]))}", f"has also {sorted(set(found[name]) - set(seqs))}")
            for name, seqs in wanted.items()
            if name in found and found[name] != seqs
        ],
    )
    complaints += _some("out of order", _disorder(wanted, found))
    complaints += _some("dead without a reason", set(outcome.dead) - expected.dead - poison)
    complaints += _some("neither in a window nor dead", (expected.dead | poison) - set(outcome.dead))
    tried = {result["window"]["reason"] for result in outcome.results}
    complaints += _some("reasons for which no window was closed", set(reasons) - tried)
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
        (key, name, _), members = _name(result), _members(result)
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
    identities = Counter(map(_name, outcome.results))
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


def _disorder(wanted: Iterable[Name], found: Iterable[Name]) -> Iterator[str]:
    """For each key, the first result that came before its turn."""
    wanted, found = list(wanted), list(found)
    both = {*wanted} & {*found}
    for key in {name[0] for name in both}:
        turns, came = ([name for name in each if name[0] == key and name in both] for each in (wanted, found))
        if turns != came:
            yield next(f"{early} before {due}" for due, early in zip(turns, came, strict=True) if due != early)


def _by_key(sent: list[Sent], keyed: bool = True) -> dict[str, list[Sent]]:
    groups: dict[str, list[Sent]] = defaultdict(list)
    for message in sent:
        groups[message.key if keyed else ""].append(message)
    return groups


def _name(result: dict[str, Any]) -> Name:
    return result["key"], result["window"]["id"], result["window"]["revision"]


def _members(result: dict[str, Any]) -> list[int]:
    return _expand(result["window"]["members"])


def _expand(pairs: Iterable[tuple[int, int]]) -> list[int]:
    return [seq for first, last in pairs for seq in range(first, last + 1)]


def _some(what: str, things: Iterable[Any]) -> list[str]:
    listed = sorted(things)
    return [f"{len(listed)} {what}: {listed[:_MOST_SHOWN]}"] if listed else []
