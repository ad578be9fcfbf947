"""Which windows a task cuts its stream into, as data and as a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, cast

from aipod.errors import ConfigError

__all__ = ["COUNTED", "KINDS", "Kind", "WindowSpec"]

Kind = Literal["count", "sliding", "tumbling", "hopping", "session"]
KINDS: tuple[Kind, ...] = ("count", "sliding", "tumbling", "hopping", "session")
# Those whose size is a number of messages.
COUNTED = ("count", "sliding")
_STEPPED = ("sliding", "hopping")
_LATE = ("drop", "dead_letter", "amend")
_EXAMPLES = "count:32, sliding:32:8, tumbling:60s, hopping:60s:10s, session:30s"

# A message is a member of size / step hopping windows, and each of them costs what a tumbling one does.
_MOST_OVERLAP = 1_000
# Instants are kept in microseconds, so nothing can be shorter; and nobody waits for more than a thousand years.
_SHORTEST, _LONGEST = 1e-6, 3e10

_DURATION = re.compile(r"(-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?) ?(ms|s|m|h|d)?")
# A unit as a factor and a divisor, since 50 / 1000 is 0.05, and 50 * 0.001 is not.
_UNITS = {"h": (3600, 1), "m": (60, 1), "s": (1, 1), "ms": (1, 1000), "d": (86400, 1)}


@dataclass(frozen=True)
class WindowSpec:
    """The windows of a task. All durations are in seconds.

    Attributes:
        kind: ``count`` and ``sliding`` count messages; ``tumbling`` and ``hopping`` have bounds in time, aligned to
            ``align``; a ``session`` lasts until no message comes for a while.
        size: Messages (count, sliding), the length (tumbling, hopping), or the gap that ends a session.
        step: How far a sliding (messages; 1 if not given) or hopping window is from the next; no other has one.
        max_messages: No window holds more; one that has so many is closed, and another goes on.
        max_wait: How long after its first member was stored a window is closed at the latest, by the server's clock.
            See :attr:`wait` for what None stands for.
        lateness: How much older than the newest message of its key a message may be without being late.
        max_ahead: How far a message's own time may run ahead of when it was stored; beyond that it is not believed.
        own_time: Whether the time of a message is its own; else it is when the server stored it.
        late: What becomes of messages that come after their window: see :class:`Late`.
        retain: How long after its close a window can be amended, by the server's clock.
        early: Emit an early result after every so many members; 0 for never.
        align: What the bounds of tumbling and hopping windows are aligned to, in unix seconds.

    Raises:
        ConfigError: With one sentence for each problem.
    """

    kind: Kind
    size: float
    step: float = 0
    max_messages: int = 10_000
    max_wait: float | None = None
    lateness: float = 0.0
    max_ahead: float = 60.0
    own_time: bool = False
    late: Literal["drop", "dead_letter", "amend"] = "dead_letter"
    retain: float = 600.0
    early: int = 0
    align: float = 0.0

    def __post_init__(self) -> None:
        if self.kind == "sliding" and self.step == 0:
            object.__setattr__(self, "step", 1)
        # What belongs together is compared only if it is right by itself.
        problems = list(_wrong_values(self)) or list(_wrong_together(self))
        if problems:
            raise ConfigError(problems)
        if self.kind in COUNTED:
            object.__setattr__(self, "size", int(self.size))
            object.__setattr__(self, "step", int(self.step))

    @property
    def wait(self) -> float:
        """``max_wait``, or what holds without it: enough for a window to be closed by its bounds first."""
        if self.max_wait is not None:
            return self.max_wait
        if self.kind in COUNTED:
            return 60.0
        if self.kind == "session":
            return 10 * self.size + self.lateness
        return self.size + self.lateness + 5.0

    @property
    def reach(self) -> float:
        """How long before a message was stored a part of its window can have been recorded, in seconds; or the window
        itself, if the message comes late and amends it.

        A restart needs the results of so long before the first message that it reads again.
        """
        if self.kind in COUNTED:
            return 0.0
        return max(self.size + self.lateness + self.wait, self.retain if self.late == "amend" else 0.0)

    @classmethod
    def parse(cls, text: str, **more: Any) -> WindowSpec:
        """Read ``kind:size[:step][,field=value]…``, such as ``count:100,max_wait=50ms``.

        Durations have a unit (``ms``, ``s``, ``m``, ``h``, ``d``) or are in seconds. Fields that are given as keywords,
        as values, override the text's.

        Raises:
            ConfigError: It says no windows; with one sentence for each problem.
        """
        head, *options = (part.strip() for part in text.split(","))
        kind, *numbers = (part.strip() for part in head.split(":"))
        if kind not in KINDS:
            raise ConfigError([f"{text[:64]!r} begins with no kind of window; write it like one of {_EXAMPLES}"])
        problems: list[str] = []
        values: dict[str, Any] = {}
        if len(numbers) > 2:
            problems.append(f"{head[:64]!r} has too many numbers; write it like one of {_EXAMPLES}")
        for name, value in (*zip(_BOUNDS, numbers, strict=False), *map(_pair, options)):
            if name not in _READ or (name in _BOUNDS and name in values):
                problems.append(f"there is no {name[:64]!r}; a window can have {', '.join(list(_READ)[2:])}")
                continue
            try:
                values[name] = _READ[name](value)
            except ValueError:
                problems.append(f"{name} cannot be {value[:64]!r}; write {_ALLOWED[_READ[name]]}")
        values = {"kind": kind, **values, **more}
        if "size" not in values and not problems:
            problems.append(f"{text[:64]!r} says no size; write it like one of {_EXAMPLES}")
        if problems:
            raise ConfigError(problems)
        return cls(**values)

    def __str__(self) -> str:
        """Write it so that :meth:`parse` makes the same of it."""
        measure = _number if self.kind in COUNTED else _duration
        parts = [f"{self.kind}:{measure(self.size)}"]
        if self.kind in _STEPPED and not (self.kind == "sliding" and self.step == 1):
            parts[0] += f":{measure(self.step)}"
        for field in fields(self)[3:]:
            value = getattr(self, field.name)
            if field.default is not MISSING and value != field.default:
                parts.append(f"{field.name}={_WRITE[_READ[field.name]](value)}")
        return ",".join(parts)


def _wrong_values(spec: WindowSpec) -> Iterator[str]:
    kind: str = spec.kind
    if kind not in KINDS:
        return iter([f"kind is {kind!r}; it must be one of {', '.join(KINDS)}"])
    size, step, counted = spec.size, spec.step, kind in COUNTED
    checks = {
        f"size is {size!r}; of {kind} windows it is a number of messages, at least 1": not counted
        or _is_whole(size, 1),
        f"size is {size!r}; of {kind} windows it is a duration above 0": counted or _is_number(size, _SHORTEST),
        f"step is {step!r}; of sliding windows it is a number of messages, at least 1": (
            kind != "sliding" or _is_whole(step, 1)
        ),
        f"step is {step!r}; hopping windows need one, a duration above 0": (
            kind != "hopping" or _is_number(step, _SHORTEST)
        ),
        f"step is {step!r}, but {kind} windows have none; only sliding and hopping ones do": (
            kind in _STEPPED or step == 0
        ),
        f"max_messages is {spec.max_messages!r}; it must be a whole number of at least 1": (
            _is_whole(spec.max_messages, 1)
        ),
        f"max_wait is {spec.max_wait!r}; it must be a duration above 0": (
            spec.max_wait is None or _is_number(spec.max_wait, _SHORTEST)
        ),
        f"lateness is {spec.lateness!r}; it must be a duration of at least 0": _is_number(spec.lateness, 0),
        f"max_ahead is {spec.max_ahead!r}; it must be a duration of at least 0": _is_number(spec.max_ahead, 0),
        f"retain is {spec.retain!r}; it must be a duration of at least 0": _is_number(spec.retain, 0),
        f"own_time is {spec.own_time!r}; it must be true or false": type(spec.own_time) is bool,
        f"late is {spec.late!r}; it must be one of {', '.join(_LATE)}": spec.late in _LATE,
        f"early is {spec.early!r}; it must be a whole number of at least 0": _is_whole(spec.early, 0),
        f"align is {spec.align!r}; it must be unix seconds": _is_number(spec.align, -_LONGEST),
    }
    return (problem for problem, right in checks.items() if not right)


def _wrong_together(spec: WindowSpec) -> Iterator[str]:
    if spec.kind in COUNTED and spec.size > spec.max_messages:
        yield f"size is {int(spec.size)}, more than max_messages ({spec.max_messages}); make one of them fit the other"
    if spec.kind in _STEPPED and spec.step > spec.size:
        step, size = (_number(each) if spec.kind in COUNTED else _duration(each) for each in (spec.step, spec.size))
        yield f"step is {step}, more than size ({size}); messages in between would be in no window"
    if spec.kind == "hopping" and spec.size > _MOST_OVERLAP * spec.step:
        yield f"size is more than {_MOST_OVERLAP} steps, and each message would be in so many windows; widen the step"
    if spec.kind == "sliding" and spec.early:
        yield "early is for windows that take long to fill, and sliding ones do not; give them a smaller step"
    if spec.kind not in COUNTED and spec.wait < spec.size + spec.lateness:
        what = "a session would be cut before its gap" if spec.kind == "session" else "a window would be closed early"
        least = _duration(round(spec.size + spec.lateness, 6))
        yield (
            f"max_wait is {_duration(spec.wait)}, less than size and lateness ({least}), so that {what}; make it longer"
        )


def _is_number(value: object, low: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= _LONGEST


def _is_whole(value: object, low: int) -> bool:
    return _is_number(value, low) and value == int(cast(float, value))


def _pair(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    return name.strip(), value.strip()


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    factor, divisor = _UNITS[match[2] or "s"]
    return float(match[1]) * factor / divisor


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def _measure(text: str) -> float:
    # Without a unit it may be messages.
    return int(text) if text.isdecimal() else _seconds(text)


def _yes(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _number(value: float) -> str:
    return str(int(value))


def _duration(value: float) -> str:
    """Write seconds in the largest unit in which they are a whole number; "60s" is no "1m"."""
    for unit, least in (("h", 3600), ("m", 120), ("s", 1), ("ms", 0.001)):
        factor, divisor = _UNITS[unit]
        number = round(value * divisor / factor)
        if abs(value) >= least and number * factor / divisor == value:
            return f"{number}{unit}"
    return f"{value!r}s" if value else "0s"


_BOUNDS = ("size", "step")
_READ: dict[str, Callable[[str], Any]] = {
    "size": _measure,
    "step": _measure,
    "max_messages": _whole,
    "max_wait": _seconds,
    "lateness": _seconds,
    "max_ahead": _seconds,
    "own_time": _yes,
    "late": str,
    "retain": _seconds,
    "early": _whole,
    "align": _seconds,
}
_ALLOWED: dict[Callable[[str], Any], str] = {
    _whole: "a whole number",
    _measure: 'a number of messages, or a duration such as "10s"',
    _seconds: 'a duration such as "250ms", "10s", "5m"',
    _yes: "true or false",
}
_WRITE: dict[Callable[[str], Any], Callable[[Any], str]] = {
    _whole: str,
    str: str,
    _seconds: _duration,
    _yes: lambda value: "true" if value else "false",
}
