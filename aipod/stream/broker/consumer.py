"""The durable pull consumer of a task: made, or held against what the task needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from aipod.errors import ConfigError, Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.times import nanoseconds
from aipod.stream.errors import LostEnd, NoStream, Refused

__all__ = ["ConsumerSpec", "ConsumerState", "ensure", "find_stream"]

# JetStream's numbers for what is not there, and for what is there already.
_NO_CONSUMER = 10014
_EXISTS = (10013, 10105, 10148)
_NS = 1_000_000_000


@dataclass(frozen=True)
class ConsumerSpec:
    """What a task needs of its consumer.

    Attributes:
        stream: None to have it found by the subjects.
        subjects: Filters; empty for the whole stream.
        ack_wait: Seconds after which what was not acknowledged is delivered again.
        max_ack_pending: How many messages may be out at a time.
        start: Where a new consumer begins: ``"all"``, ``"new"``, ``"seq:N"`` or ``"time:2026-01-31T12:00:00Z"``. One
            that exists goes on where it is.

    Raises:
        ConfigError: With all that is wrong.
    """

    durable: str
    stream: str | None = None
    subjects: tuple[str, ...] = ()
    ack_wait: float = 10.0
    max_ack_pending: int = 20_000
    start: str = "all"

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[str]:
        for what, name in (("durable", self.durable), ("stream", self.stream)):
            if name is not None and (not name or any(sign in name for sign in "*>./\\ \t\r\n")):
                yield f"{what}: {name!r} is no name; leave out dots, spaces, slashes, * and >"
        if self.stream is None and not self.subjects:
            yield "name the stream, or the subjects to find it by"
        for subject in self.subjects:
            tokens = subject.split(".")
            if any(not token or any(sign.isspace() for sign in token) for token in tokens):
                yield f"subjects: {subject!r} has an empty token or a space"
            elif ">" in tokens[:-1] or any(len(token) > 1 and ("*" in token or ">" in token) for token in tokens):
                yield f"subjects: {subject!r} is no filter; * stands for a whole token, > for the rest"
        if self.ack_wait < 1:
            yield f"ack_wait: {self.ack_wait:g} s is too short; take one second or more"
        if self.max_ack_pending < 1:
            yield f"max_ack_pending: {self.max_ack_pending} lets nothing be delivered"
        try:
            self.beginning()
        except ValueError:
            yield f"start: {self.start!r} is none of all, new, seq:N, time:2026-01-31T12:00:00Z"

    def beginning(self) -> dict[str, Any]:
        """``start`` in JetStream's words."""
        kind, _, at = self.start.partition(":")
        if self.start in ("all", "new"):
            return {"deliver_policy": self.start}
        if kind == "seq" and int(at) > 0:
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": int(at)}
        if kind == "time":
            moment = datetime.fromisoformat(at.replace("Z", "+00:00"))
            if moment.tzinfo is None:
                raise ValueError("a time without a zone")
            moment = moment.astimezone(timezone.utc)
            return {"deliver_policy": "by_start_time", "opt_start_time": moment.isoformat().replace("+00:00", "Z")}
        raise ValueError(self.start)

    def needs(self) -> dict[str, Any]:
        """The settings without which a task cannot keep its promises, in JetStream's words."""
        return {
            "ack_policy": "explicit",
            "ack_wait": round(self.ack_wait * _NS),
            "max_deliver": -1,
            "max_ack_pending": self.max_ack_pending,
            "replay_policy": "instant",
            "subjects": tuple(sorted(self.subjects)),
            "deliver_subject": "",
            "headers_only": False,
            "backoff": (),
            "max_batch": 0,
            "max_bytes": 0,
            "max_expires": 0,
        }


@dataclass(frozen=True)
class ConsumerState:
    """A consumer as the broker had it a moment ago.

    Attributes:
        created: Whether :func:`ensure` made it just now.
        exists: False only where it was asked not to be made.
        floor: All up to this stream sequence is acknowledged.
        delivered: Nothing above this stream sequence was ever delivered.
        ack_pending: How many are delivered and not acknowledged.
        num_pending: How many wait for their first delivery.
        incarnation: When the stream was created; another one, another stream.
        last: The last sequence of the stream.
        time: The broker's clock in unix seconds, before it counted what is pending; 0.0 if it did not say (before
            2.10).
    """

    stream: str
    durable: str
    subjects: tuple[str, ...]
    created: bool
    exists: bool
    floor: int
    delivered: int
    ack_pending: int
    num_pending: int
    retention: str
    max_age: float
    incarnation: str
    first: int
    last: int
    time: float


async def ensure(
    conn: Connection, spec: ConsumerSpec, *, create: bool = True, after: int | None = None, timeout: float = 5.0
) -> ConsumerState:
    """Look at a task's stream and consumer, and make the consumer if it is not there.

    Args:
        create: False to look only.
        after: A consumer that is made begins behind this stream sequence, whatever ``spec.start`` says.
        timeout: Seconds that the broker may take for each answer.

    Raises:
        ConfigError: The stream is not there or not fit, or the consumer is not what the task needs; with every field
            that differs.
        LostEnd: The stream ends before what was acknowledged.
        Unavailable: The broker is away.
    """
    stream = spec.stream if spec.stream is not None else await find_stream(conn, spec.subjects)
    about = await _stream(conn, stream, timeout)
    if problem := _unfit(conn, spec, about):
        raise ConfigError([problem])
    found, created = await _consumer(conn, stream, spec.durable, timeout), False
    if found is None and create:
        try:
            found, created = await _make(conn, spec, about, after), True
        except Refused as error:
            found = await _consumer(conn, stream, spec.durable, timeout) if error.err_code in _EXISTS else None
            if found is None:
                raise ConfigError([f"consumer {spec.durable!r} cannot be made: {error.description}"]) from error
    if found is not None and (problems := list(_differences(spec, found["config"]))):
        what = f"consumer {spec.durable!r} of stream {stream!r}"
        raise ConfigError([f"{what}: {problem}; delete it, or change the task" for problem in problems])
    state = _state(stream, spec, about, found, created)
    if state.floor > state.last:
        raise _beyond_the_end(state, spec)
    return state


async def find_stream(conn: Connection, subjects: tuple[str, ...]) -> str:
    """Find the one stream that holds some subjects.

    Raises:
        ConfigError: There is none, or more than one.
    """
    names: set[str] = set()
    for subject in subjects:
        found = (await conn.api("STREAM.NAMES", {"subject": subject})).get("streams") or []
        if not found:
            raise NoStream([f"no stream holds subject {subject!r}; create it, or name the stream of the task"])
        names.update(found)
    if len(names) > 1:
        raise ConfigError([f"the subjects are in several streams ({', '.join(sorted(names))}); name one of them"])
    return names.pop()


async def _stream(conn: Connection, stream: str, timeout: float) -> dict[str, Any]:
    try:
        return await conn.api(f"STREAM.INFO.{stream}", timeout=timeout)
    except Refused as error:
        if error.is_no_stream:
            raise NoStream([f"there is no stream {stream!r}; create it, or name another"]) from error
        raise ConfigError([f"stream {stream!r}: {error.description}"]) from error


async def _consumer(conn: Connection, stream: str, durable: str, timeout: float) -> dict[str, Any] | None:
    try:
        return await conn.api(f"CONSUMER.INFO.{stream}.{durable}", timeout=timeout)
    except Refused as error:
        if error.err_code == _NO_CONSUMER:
            return None
        if error.is_no_stream:
            raise Unavailable(f"stream {stream!r} was deleted just now") from error
        raise


async def _make(conn: Connection, spec: ConsumerSpec, about: dict[str, Any], after: int | None) -> dict[str, Any]:
    stream, beginning = about["config"]["name"], spec.beginning()
    if after is not None:
        beginning = _from(after + 1)
    elif spec.start == "new":
        beginning = _from(about["state"]["last_seq"] + 1)
    elif moment := beginning.get("opt_start_time"):
        beginning = _from(await _first_since(conn, about, nanoseconds(moment)))
    config = {
        "durable_name": spec.durable,
        "ack_policy": "explicit",
        "ack_wait": round(spec.ack_wait * _NS),
        "max_deliver": -1,
        "max_ack_pending": spec.max_ack_pending,
        "replay_policy": "instant",
        **beginning,
    }
    if len(spec.subjects) == 1:
        config["filter_subject"] = spec.subjects[0]
    elif spec.subjects:
        config["filter_subjects"] = list(spec.subjects)
    request = {"stream_name": stream, "config": config, "action": "create"}
    return await conn.api(f"CONSUMER.DURABLE.CREATE.{stream}.{spec.durable}", request)


def _from(seq: int) -> dict[str, Any]:
    # Always in these words: of any others, a broker before 2.14 does not tell where the consumer began.
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": seq}


async def _first_since(conn: Connection, about: dict[str, Any], moment: int) -> int:
    """The sequence behind all that was stored before a moment, in unix nanoseconds."""
    get = f"STREAM.MSG.GET.{about['config']['name']}"
    low: int = max(1, about["state"]["first_seq"])
    high: int = about["state"]["last_seq"] + 1
    while low < high:
        middle = (low + high) // 2
        try:
            message = (await conn.api(get, {"seq": middle, "next_by_subj": ">"}))["message"]
        except Refused as error:
            if not error.is_not_found:
                raise
            high = middle
            continue
        if nanoseconds(message["time"]) < moment:
            low = message["seq"] + 1
        else:
            high = middle
    return low


def _unfit(conn: Connection, spec: ConsumerSpec, about: dict[str, Any]) -> str:
    config = about["config"]
    if config.get("persist_mode") == "async":
        return (
            f"stream {config['name']!r} acknowledges before it stores (persist_mode async), so a crash of the broker "
            "loses messages; set it to default"
        )
    if len(spec.subjects) > 1:
        version = conn.nc.connected_server_version
        if (version.major, version.minor) < (2, 10):
            return f"a consumer of several subjects needs nats-server 2.10, and this is {version.major}.{version.minor}"
    return ""


def _beyond_the_end(state: ConsumerState, spec: ConsumerSpec) -> ConfigError:
    ends, durable = f"stream {state.stream!r} ends at {state.last}", f"consumer {spec.durable!r}"
    if spec.start == f"seq:{state.floor + 1}":  # nothing was acknowledged: the stream may still come so far
        return ConfigError([f"{ends}, before where {durable} begins ({spec.start}); delete it to begin elsewhere"])
    return LostEnd(
        [
            f"{ends}, before what was acknowledged ({state.floor}): it has lost its end, or was made anew; delete "
            f"{durable}, and start the task again"
        ]
    )


def _differences(spec: ConsumerSpec, config: dict[str, Any]) -> Iterator[str]:
    filters = config.get("filter_subjects") or ([config["filter_subject"]] if config.get("filter_subject") else [])
    there = {**config, "subjects": tuple(sorted(filters)), "backoff": tuple(config.get("backoff") or ())}
    for field, wanted in spec.needs().items():
        value = there.get(field, type(wanted)())
        if field == "subjects" and {*value, *wanted} <= {">"}:
            continue  # two ways to say all
        if value != wanted:
            yield f"{field} is {_shown(field, value)}, and the task needs {_shown(field, wanted)}"


def _shown(field: str, value: Any) -> str:
    if field in ("ack_wait", "max_expires"):
        return f"{value / _NS:g} s"
    if field in ("subjects", "backoff"):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value != "" else "none"


def _state(
    stream: str, spec: ConsumerSpec, about: dict[str, Any], found: dict[str, Any] | None, created: bool
) -> ConsumerState:
    config, state = about["config"], about["state"]
    known = found or {}
    floor, delivered = _progress(known)
    time = about.get("ts")
    return ConsumerState(
        stream=stream,
        durable=spec.durable,
        subjects=spec.subjects,
        created=created,
        exists=found is not None,
        floor=floor,
        delivered=delivered,
        ack_pending=known.get("num_ack_pending", 0),
        num_pending=known.get("num_pending", 0),
        retention=config.get("retention", "limits"),
        max_age=config.get("max_age", 0) / _NS,
        incarnation=about.get("created", ""),
        first=state.get("first_seq", 0),
        last=state.get("last_seq", 0),
        time=nanoseconds(time) / _NS if time else 0.0,
    )


def _progress(info: dict[str, Any]) -> tuple[int, int]:
    """The stream sequences up to which a consumer is acknowledged, and has delivered.

    A broker before 2.14 says 0 for the first until something is acknowledged, wherever the consumer began.
    """
    config, acked, delivered = (info.get(name, {}) for name in ("config", "ack_floor", "delivered"))
    floor, last = acked.get("stream_seq", 0), delivered.get("stream_seq", 0)
    if not acked.get("consumer_seq"):
        floor = max(floor, config.get("opt_start_seq", 0) - 1)
    if not delivered.get("consumer_seq"):
        floor = last = max(floor, last)  # just before its first
    return floor, last
