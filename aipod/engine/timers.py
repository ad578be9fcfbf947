"""What the pool does because time passes: newcomers lose patience, their callers run out of time, idle versions leave.

Every action runs on the clock's thread, looks at the roster under the pool's lock, and finds that things have changed,
or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from aipod.clock import Clock
from aipod.engine.call import Call
from aipod.engine.refusals import no_place
from aipod.engine.resident import Resident, State
from aipod.engine.roster import Roster

__all__ = ["Action", "Planning", "Timers"]

Action = Callable[[], object]
# Holds the pool's lock; gives a list for what is to be done when it is gone.
Planning = Callable[[], AbstractContextManager[list[Action]]]

# A refusal sent at the deadline comes too late: the caller has given up by then.
_REFUSE_BEFORE = 0.5
# How often a newcomer that nobody makes room for looks whether a neighbour could go, in seconds.
_PATIENCE = 0.5
_NEVER = float("inf")


class Timers:
    """The pool's timers.

    Args:
        clock: What keeps the time.
        roster: What is looked at.
        planning: How.
        leave: Takes a resident out.
        idle_ttl: Seconds after which a version that nobody asked for leaves; 0 for never.
    """

    def __init__(
        self,
        clock: Clock,
        roster: Roster,
        planning: Planning,
        leave: Callable[[Resident], list[Action]],
        idle_ttl: float,
    ) -> None:
        self._clock = clock
        self._roster = roster
        self._planning = planning
        self._leave = leave
        self._idle_ttl = idle_ttl

    def watch_newcomer(self, resident: Resident) -> None:
        """It waits for a place from now on."""
        self._at(resident, resident.waiting_since + _PATIENCE / 10, self._press)

    def watch_call(self, resident: Resident, call: Call) -> None:
        """A call waits for a newcomer: refuse it while its caller still listens."""
        instant = _refusal(call)
        if instant < resident.next_refusal:
            resident.next_refusal = instant
            self._at(resident, instant, self._refuse)

    def watch_idle(self, resident: Resident) -> None:
        """It serves from now on, and leaves when nobody asks for it."""
        if self._idle_ttl:
            self._at(resident, time.monotonic() + self._idle_ttl, self._expire)

    def _at(self, resident: Resident, instant: float, action: Callable[[Resident], None]) -> None:
        resident.timers = [timer for timer in resident.timers if timer.action is not None]
        resident.timers.append(self._clock.at(instant, partial(action, resident)))

    def _press(self, resident: Resident) -> None:
        """Where only a stream of short calls keeps a newcomer's neighbour busy, the neighbour goes.

        It may stay for as long as it took to load, so that loading never takes more than half of the time. Where a long
        call runs, its end decides; closing its lane would only keep more callers waiting.
        """
        with self._planning() as todo:
            if resident.state is not State.WAITING or resident not in self._roster.waiting:
                return
            now, since = time.monotonic(), resident.waiting_since
            stream = min(self._roster.streams(since), key=lambda one: one.load_seconds, default=None)
            is_next = self._roster.waiting[0] is resident and not self._roster.leaving
            due = since + stream.load_seconds if stream is not None and is_next else now + _PATIENCE
            if due > now or stream is None:
                self._at(resident, max(due, now + _PATIENCE / 10), self._press)
            else:
                self._roster.evictions += 1
                resident.displaced.append(stream)
                todo.extend(self._leave(stream))

    def _refuse(self, resident: Resident) -> None:
        with self._planning() as todo:
            resident.next_refusal = _NEVER
            # Where somebody is being disposed of, a place comes any moment: worth the rest of the time.
            if resident.state is not State.WAITING or any(one.disposing for one in self._roster.leaving):
                return
            now = time.monotonic()
            waiting = resident.lane.waiting()
            late = [call for call in waiting if _refusal(call) <= now]
            todo.extend(partial(call.fail, no_place(resident.version)) for call in late)
            todo.append(partial(resident.lane.remove, late))
            rest = min((call for call in waiting if _refusal(call) > now), key=_refusal, default=None)
            if rest is not None:
                self.watch_call(resident, rest)

    def _expire(self, resident: Resident) -> None:
        with self._planning() as todo:
            if resident.state is not State.READY:
                return
            now = time.monotonic()
            due = resident.lane.last_used + self._idle_ttl
            if due <= now and self._roster.retire(resident):
                todo.extend(self._leave(resident))
            else:
                self._at(resident, max(due, now + self._idle_ttl / 4), self._expire)


def _refusal(call: Call) -> float:
    """When to refuse a call that nothing has come of: shortly before its deadline, but not without a wait."""
    if call.deadline is None:
        return _NEVER
    return call.deadline - min(_REFUSE_BEFORE, (call.deadline - call.arrived) / 4)
