"""Takes a task's messages in: in stream order, each once, none missing, whatever becomes of the broker.

The rules:

1. *Position* is the stream sequence up to which everything was handed out. Only :meth:`Intake.get` moves it.
2. A delivery above the position is next, if its consumer sequence follows that of the delivery before it. If not, some
   delivery was lost, or went to another process: what lies between is read from the stream first. So it is at the
   start, after a reconnection, and when the broker says that more was delivered than arrived.
3. A delivery at or below the position is one that came before. Its message is held still, then this is how it is to be
   acknowledged now; or it is done, then it is acknowledged at once. So no acknowledgement has to be kept, and nobody
   waits for a redelivery.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from aipod.errors import ConfigError, Unavailable
from aipod.stream.broker.acks import Acks
from aipod.stream.broker.alarm import Alarm
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.consumer import ConsumerSpec, ConsumerState, ensure
from aipod.stream.broker.headers import plain
from aipod.stream.broker.pulls import Pulls, place_of
from aipod.stream.broker.reader import Reader
from aipod.stream.broker.removals import Removals
from aipod.stream.broker.times import ServerClock
from aipod.stream.errors import NoStream, Refused, Replaced
from aipod.stream.message import Message
from aipod.stream.pauses import Pauses

__all__ = ["Intake"]

_log = logging.getLogger(__name__)

_NS = 1_000_000_000
_PIECE = 1000  # messages that one get() hands out, so that nobody else on the loop waits long
_OVERHEAD = 300  # bytes that a message takes beside its payload
_PATIENCE = 2.0  # seconds for an answer; get() may take that much longer than it was told
_TICK = 0.5  # seconds between two looks at what may have fallen silent
_PAUSES = (0.1, 1.0)


class Intake:
    """One consumer's messages. Belongs to the loop; :meth:`get` to one task at a time.

    Args:
        state: The consumer as :func:`~aipod.stream.broker.consumer.ensure` found it.
        max_bytes: Of what is held; about, since one request more may be on its way.
        on_deleted: What is done if the consumer or its stream is deleted meanwhile: ``"recreate"`` makes the consumer
            again behind what is done, ``"fail"`` raises.
        look_every: Seconds between two looks at the consumer when nothing comes.
        sure: Says whether we may acknowledge now. What is done while we may not is acknowledged when we may again, and
            is held until then.

    Attributes:
        removals: What the stream removed before it could be handed out.
    """

    def __init__(
        self,
        conn: Connection,
        spec: ConsumerSpec,
        state: ConsumerState,
        *,
        max_bytes: int = 256 * 1024 * 1024,
        on_deleted: str = "recreate",
        look_every: float = 30.0,
        sure: Callable[[], bool] = lambda: True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = state
        self.held_bytes = 0
        self.redelivered = 0
        self.removals = Removals(conn, spec, state)
        self._conn = conn
        self._spec = spec
        self._max_bytes = max_bytes
        self._on_deleted = on_deleted
        self._look_every = look_every
        self._sure = sure
        self._monotonic = monotonic
        self._clock = ServerClock(monotonic)
        self._reader = Reader(conn, state.stream, spec.subjects)
        self._alarm = Alarm()
        self._pulls = Pulls(conn, state.stream, spec.durable, self._room, self._alarm.ring, monotonic)
        self._acks = Acks(conn, self._handle, spec.ack_wait, monotonic)
        # Handed out and not done: how to acknowledge it ("" before that is known), and its size. In stream order.
        self._held: dict[int, tuple[str, int]] = {}
        # Done, and not to be acknowledged yet.
        self._withheld: list[int] = []
        # Fed, and to be handed out by get(). Not a local of it: a get() that is cancelled loses nothing.
        self._ready: list[Message] = []
        self._position = 0
        self._last = (0, 0.0)  # sequence and stored time of the last that was fed
        self._until = 0  # read the stream up to here before any delivery is looked at
        self._cseq = -1  # of the last delivery; what follows it is no gap
        self._lag = state.num_pending
        self._in_doubt = False
        self._looked = 0.0
        self._pauses = Pauses(*_PAUSES)
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"<Intake {self._spec.durable} at {self._position}, {self.held_messages} held, {self._lag} behind>"

    @property
    def held_messages(self) -> int:
        """How many are handed out and not done."""
        return len(self._held)

    @property
    def position(self) -> int:
        return self._position

    @property
    def floor(self) -> int:
        """Everything up to here is done: none of it will be handed out again by this intake."""
        return next(iter(self._held), self._position + 1) - 1

    @property
    def lag(self) -> int:
        """How many messages wait at the broker, as far as it has said."""
        return self._lag + len(self._pulls.queue)

    @property
    def caught_up(self) -> bool:
        """Whether everything that the broker has told of is handed out."""
        unsure = self._in_doubt or self._pulls.doubt or not self._conn.connected
        return not (unsure or self._ready or self.lag or self._until > self._position)

    def now(self) -> float:
        """The broker's clock, in unix seconds; it never goes backwards.

        A message that was stored before it may still be on its way: :meth:`settled` knows better.
        """
        return self._clock.now()

    async def start(self, floor: int | None = None, delivered: int | None = None) -> None:
        """Begin behind ``floor``; what was delivered to others up to ``delivered`` is read from the stream."""
        self._position = self.state.floor if floor is None else floor
        self._until = self.state.delivered if delivered is None else delivered
        self._looked = self._monotonic()
        self.removals.looked(self.state, max(self._position, self._until))
        if self.state.time:
            self._clock.set(self.state.time)
        self._conn.watch(self._changed)
        self._acks.start()
        await self._pulls.ask()

    async def get(self, timeout: float | None = None) -> list[Message]:
        """Hand out what is next; [] if nothing comes within ``timeout`` seconds. Safe to cancel.

        While the broker is away nothing comes, and nothing is raised.

        Raises:
            ConfigError: The consumer is not what the task needs any more, or is deleted and shall not be made again.
            Unavailable: The stream is another one now; the task is to be started afresh.
        """
        end = None if timeout is None else self._monotonic() + timeout
        while True:
            await self._advance()
            if self._may_ask():
                await self._pulls.ask()
            if self._ready:
                ready, self._ready = self._ready, []
                return ready
            left = _TICK if end is None else end - self._monotonic()
            if left <= 0:
                return []
            if not self._can_advance():
                await self._alarm.sleep(min(left, _TICK))

    def done(self, seqs: Iterable[int]) -> None:
        """These are in every sink: acknowledge them now, or as soon as they are delivered again."""
        if not self._sure():
            self._withheld.extend(seqs)
            return
        if self._withheld:
            seqs, self._withheld = [*self._withheld, *seqs], []
        replies = []
        pop = self._held.pop
        for seq in seqs:
            reply, size = pop(seq, ("", 0))
            self.held_bytes -= size
            if reply:
                replies.append(reply)
        if replies:
            self._acks.done(replies)
        # A reader that waits for room has some now.
        self._alarm.ring()

    async def settled(self) -> float | None:
        """Ask the broker whether all is handed out that it has; then the time up to which that is certain.

        Windows that a clock closes are closed at this time: no message that was stored before it is still to come.

        Returns:
            Unix seconds by the broker's clock; None if there is more to come, or the broker is away.
        """
        if not self.caught_up:
            return None
        asked = self._clock.now()
        try:
            state = await ensure(self._conn, self._spec, create=False, timeout=_PATIENCE)
        except (ConfigError, Unavailable, Refused):
            self._in_doubt = True  # get() has a look, and says what it is
            return None
        if state.num_pending or state.delivered > self._position or not self.caught_up:
            return None
        self._note(state)
        return state.time or asked

    async def leave(self) -> None:
        """Stop, and give back what is held, so that whoever comes next has it at once; never raises."""
        self._conn.unwatch(self._changed)
        self.done(())
        await self._pulls.stop()
        # What is given back must not come to us again: the broker has to know first that we listen no more.
        await self._flush()
        returned = [reply for reply, _ in self._held.values() if reply]
        returned += [msg.reply for msg in self._pulls.queue if place_of(msg.reply)[0] > self._position]
        await self._acks.stop(returned)
        await self._flush()
        self._held.clear()
        self.held_bytes = 0

    async def _advance(self) -> None:
        """Feed what is next, from the stream or from deliveries; at most a piece."""
        if self._withheld:
            self.done(())
        if self._ready or not self._may_ask():
            return
        if self._pulls.silent:
            self._pulls.forget()
            self._in_doubt = True
        before = self._position
        try:
            if self._in_doubt or self._pulls.doubt or self._is_idle():
                await self._look()
            if self._until <= self._position or self._ready:
                self._take()
            if self._until > self._position and not self._ready and self._has_room():
                await self._read()
            if self._position - before > len(self._ready):
                self.removals.passed(before + 1, self._position, self._ready)
            await self.removals.judge()
        except (Unavailable, Refused) as error:
            if isinstance(error, Replaced):
                raise
            # The broker is away, or a leader is being chosen: the doubt stays, and is looked into again.
            level = logging.DEBUG if self._pauses.begun else logging.WARNING
            _log.log(level, "%s waits: %s", self._spec.durable, error)
            self._in_doubt = True
            self._not_before = self._monotonic() + self._pauses.next()
        else:
            self._pauses.reset()

    def _take(self) -> None:
        queue, held = self._pulls.queue, self._held
        fresh: list[int] = []
        finished: list[str] = []
        stored = 0.0
        while queue and len(self._ready) < _PIECE:
            msg = queue.popleft()
            seq, cseq, nanoseconds, pending = place_of(msg.reply)
            stored = nanoseconds / _NS
            follows = cseq == self._cseq + 1
            if seq > self._position:
                if not follows and seq > self._position + 1:
                    self._until = seq - 1  # once the stream is read that far, this delivery is the next
                    queue.appendleft(msg)
                    break
                headers = plain(msg.headers) if msg.headers else {}
                self._feed(Message(seq, stored, msg.subject, msg.data, headers), msg.reply)
                self._lag = pending
                fresh.append(seq)
                self._cseq = cseq
                continue
            # Whoever did not see all deliveries since the position cannot say that the next one has no gap.
            self._cseq = cseq if follows else -1
            self.redelivered += 1
            if seq not in held:
                self._check_time(seq, stored)
                finished.append(msg.reply)
            else:
                if not held[seq][0]:
                    fresh.append(seq)
                held[seq] = (msg.reply, held[seq][1])
        if stored:
            self._clock.saw(stored)
        if fresh:
            self._acks.delivered(fresh)
        if finished:
            self._acks.done(finished)

    def _feed(self, message: Message, reply: str) -> None:
        seq, size = message.seq, len(message.data) + _OVERHEAD
        self._held[seq] = (reply, size)
        self.held_bytes += size
        self._position = seq
        self._last = (seq, message.stored)
        self._ready.append(message)

    def _check_time(self, seq: int, stored: float) -> None:
        # A position that was used before, by a message that is younger than those behind it, was used twice.
        last, latest = self._last
        if seq <= last and stored > latest:
            raise Replaced(self.state.stream)

    async def _read(self) -> None:
        messages, reached = await self._reader.some(self._position + 1, self._until)
        if len(messages) < reached - self._position:
            messages = self._with_arrived(messages, reached)
        for message in messages:
            self._feed(message, "")
        self._position = max(self._position, reached)

    def _with_arrived(self, messages: list[Message], reached: int) -> list[Message]:
        """Add what has arrived, and is gone from the stream since."""
        there = {message.seq for message in messages}
        for msg in self._pulls.queue:
            seq, _, nanoseconds, _ = place_of(msg.reply)
            if self._position < seq <= reached and seq not in there:
                there.add(seq)
                messages.append(Message(seq, nanoseconds / _NS, msg.subject, msg.data, plain(msg.headers)))
        return sorted(messages, key=lambda message: message.seq)

    async def _look(self) -> None:
        """See what the broker says of the consumer, and have read what was delivered and did not arrive."""
        self._in_doubt = True  # until this is through
        self._pulls.doubt = False
        generation = self._conn.generation
        try:
            state = await ensure(self._conn, self._spec, create=False, timeout=_PATIENCE)
        except NoStream as error:
            if self._on_deleted != "recreate":
                raise
            raise Unavailable(f"stream {self.state.stream!r} was deleted; waiting for it to be made again") from error
        if state.incarnation != self.state.incarnation or state.last < self._position:
            raise Replaced(self.state.stream)
        if not state.exists:
            state = await self._recreate()
        self._note(state)
        self._until = max(self._until, state.delivered)
        self._in_doubt = generation != self._conn.generation

    async def _recreate(self) -> ConsumerState:
        if self._on_deleted != "recreate":
            raise ConfigError([f"consumer {self._spec.durable!r} was deleted while its task ran; start the task again"])
        _log.warning("consumer %s was deleted; it is made again behind %d", self._spec.durable, self.floor)
        self._cseq = -1
        return await ensure(self._conn, self._spec, after=self.floor)

    def _note(self, state: ConsumerState) -> None:
        self._looked = self._monotonic()
        self._lag = state.num_pending
        self.removals.looked(state, self._position)
        if state.time:
            self._clock.set(state.time)

    def _is_idle(self) -> bool:
        return not self._pulls.queue and self._monotonic() - self._looked > self._look_every

    def _may_ask(self) -> bool:
        return self._conn.connected and self._monotonic() >= self._not_before

    def _can_advance(self) -> bool:
        if not self._may_ask():
            return False
        return self._has_room() if self._until > self._position else bool(self._pulls.queue)

    def _has_room(self) -> bool:
        return len(self._held) < self._spec.max_ack_pending and self.held_bytes < self._max_bytes

    def _room(self) -> tuple[int, int]:
        waiting = len(self._held) + len(self._pulls.queue)
        return self._spec.max_ack_pending - waiting, self._max_bytes - self.held_bytes - self._pulls.queued_bytes

    def _handle(self, seq: int) -> str:
        return self._held[seq][0] if seq in self._held else ""

    def _changed(self, connected: bool) -> None:
        # What was asked for is lost; what was delivered may be, too; and the broker may have forgotten some numbers.
        if connected:
            self._pulls.forget()
            self._in_doubt = True
            self._cseq = -1
            self._not_before = 0.0
        self._alarm.ring()

    async def _flush(self) -> None:
        if self._conn.connected:
            try:
                await self._conn.nc.flush(2)
            except Exception as error:  # whatever it is: what is not given back now comes after ack_wait
                _log.debug("while leaving: %s", error)
