"""Any stream, any windows, any crashes: compared with a reference that sees everything at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windows_lives import World
from windows_reference import Reference, cuts, message

from aipod.stream.message import Message
from aipod.stream.result import expand
from aipod.stream.windows import Ahead, Closed, Late, Outcome, Windower, WindowSpec

KINDS = ("count", "sliding", "tumbling", "hopping", "session")
# Not hypothesis's own: a life throws many dice, and none of them is worth being shrunk by itself.
chances = st.integers(0, 2**32).map(Random)
many = st.sampled_from([0, 256])
by_kind = pytest.mark.parametrize("kind", KINDS)
TIMED = ("tumbling", "hopping", "session")
by_time = pytest.mark.parametrize("own_time", [False, True], ids=["stored", "own"])


@st.composite
def specs(draw: st.DrawFn, kind: str, own_time: bool, *, whole: bool = False) -> WindowSpec:
    """Windows of a kind; ``whole`` ones are never closed but by their bounds, and say nothing early."""
    more: dict[str, object] = {"own_time": own_time, "max_ahead": 10.0}
    if kind == "count":
        more |= {"size": draw(st.integers(1, 5)), "max_wait": draw(st.sampled_from([2.0, 15.0, 1000.0]))}
        more |= {"early": 0 if whole else draw(st.integers(0, 3))}
    elif kind == "sliding":
        size = draw(st.integers(1, 5))
        more |= {"size": size, "step": draw(st.integers(1, size))}
        more |= {"max_wait": draw(st.sampled_from([2.0, 15.0, 1000.0]))}
    else:
        more |= {"size": draw(st.sampled_from([1.0, 4.0, 10.0])), "lateness": draw(st.sampled_from([0.0, 0.5, 3.0]))}
        more |= {"max_messages": 10_000 if whole else draw(st.sampled_from([2, 3, 10_000]))}
        if kind == "hopping":
            more |= {"step": draw(st.sampled_from([more["size"], 1.0, 0.5]))}
        if kind in ("tumbling", "hopping"):
            more |= {"align": draw(st.sampled_from([0.0, 0.25])), "early": 0 if whole else draw(st.integers(0, 3))}
        if whole and kind == "session":
            more |= {"max_wait": 100_000.0}
    return WindowSpec(kind=kind, **more)  # type: ignore[arg-type]


@st.composite
def streams(draw: st.DrawFn, most: int = 40) -> list[Message]:
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from("aab"),
                st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0, 20.0]),
                st.sampled_from([0.0, 0.0, -0.25, -1.0, -4.0, -30.0, 2.0, 11.0]),
                st.integers(1, 2),
            ),
            max_size=most,
        )
    )
    made: list[Message] = []
    seq, stored = 0, 1000.0
    for key, pause, skew, gap in steps:
        seq, stored = seq + gap, stored + pause
        made.append(message(seq, stored, key, stored + skew))
    return made


def run(windower: Windower, messages: Sequence[Message]) -> list[Outcome]:
    return [outcome for one in messages for outcome in windower.feed(one)]


@by_time
@by_kind
@given(data=st.data())
def test_windows_are_what_the_reference_says(kind: str, own_time: bool, data: st.DataObject) -> None:
    spec, stream = data.draw(specs(kind, own_time)), data.draw(streams())
    if kind == "session":
        spec = replace(spec, early=0)
    outcomes = run(Windower(spec), stream)
    reference = Reference(spec, stream)
    assert sorted(cuts(outcomes)) == sorted(reference.windows)
    assert {one.message.seq for one in outcomes if isinstance(one, Late)} == reference.late
    assert {one.message.seq for one in outcomes if isinstance(one, Ahead)} == reference.ahead


@by_time
@by_kind
@given(data=st.data())
def test_every_message_comes_out_once(kind: str, own_time: bool, data: st.DataObject) -> None:
    spec, stream = data.draw(specs(kind, own_time)), data.draw(streams())
    windower, chance = Windower(spec), data.draw(chances)
    outcomes: list[Outcome] = []
    for one in stream:
        outcomes += windower.feed(one)
        outcomes += disturb(windower, one.stored, one.stored, chance)
        out = coming_out(outcomes)
        assert max(out.values(), default=1) == 1
        assert windower.open_messages == len(stream[: stream.index(one) + 1]) - len(out)
        deadline = windower.deadline()
        assert deadline is not None or not windower.open_windows
    outcomes += windower.flush()
    assert coming_out(outcomes) == Counter(one.seq for one in stream)
    assert (windower.open_messages, windower.open_windows, windower.keys, windower.deadline()) == (0, 0, 0, None)
    names = Counter((one.window.key, one.window.id, one.window.revision) for one in outcomes if isinstance(one, Closed))
    assert max(names.values(), default=1) == 1


def coming_out(outcomes: Sequence[Outcome]) -> Counter[int]:
    out: Counter[int] = Counter()
    for one in outcomes:
        if isinstance(one, Closed):
            out.update(one.window.releases)
        elif not isinstance(one, Late) or one.settled:
            out[one.message.seq] += 1
    return out


def disturb(windower: Windower, now: float, then: float, chance: Random) -> list[Outcome]:
    """What happens besides messages: time passes, room is needed."""
    what = chance.choice(["", "", "", "time", "room"])
    if what == "time":
        return windower.advance(chance.choice([now, (now + then) / 2, then]))
    return windower.relieve(chance.randint(1, 4)) if what else []


def die(world: World, chance: Random, *, disturbed: bool = False) -> None:
    world.live(
        chance.randint(0, len(world.messages)),
        chance,
        lambda windower, now, then: disturb(windower, now, then, chance) if disturbed else [],
    )


@pytest.mark.parametrize("forgetful", [False, True], ids=["all", "needed"])
@by_time
@by_kind
@given(data=st.data())
@settings(max_examples=40)
def test_crashes_change_no_window(kind: str, own_time: bool, forgetful: bool, data: st.DataObject) -> None:
    # Of windows that are not whole, a record does not say all about their messages' own time.
    spec, stream = data.draw(specs(kind, own_time, whole=own_time and kind in TIMED)), data.draw(streams(25))
    world = World(spec, stream, forgetful=forgetful, many=data.draw(many))
    chance = data.draw(chances)
    for _ in range(chance.randint(1, 3)):
        die(world, chance)
    world.end(flush=False)
    outcomes = run(Windower(spec), stream)
    assert world.windows == set(cuts(outcomes))
    assert world.late == {one.message.seq for one in outcomes if isinstance(one, Late)}
    assert world.acked == set(coming_out(outcomes))


@pytest.mark.parametrize("workqueue", [False, True], ids=["kept", "workqueue"])
@pytest.mark.parametrize("forgetful", [False, True], ids=["all", "needed"])
@by_time
@by_kind
@given(data=st.data())
@settings(max_examples=40)
def test_crashes_lose_nothing_and_double_nothing(
    kind: str, own_time: bool, forgetful: bool, workqueue: bool, data: st.DataObject
) -> None:
    spec, stream = data.draw(specs(kind, own_time)), data.draw(streams(25))
    world = World(spec, stream, forgetful=forgetful, workqueue=workqueue, many=data.draw(many))
    chance = data.draw(chances)
    for _ in range(chance.randint(1, 3)):
        die(world, chance, disturbed=True)
    world.end(flush=True)
    assert world.acked == {one.seq for one in stream}
    for one in stream:
        check(world, one)


def check(world: World, one: Message) -> None:
    spec = world.spec
    holding = [
        recorded for recorded, _ in world.record if recorded.reason != "early" and one.seq in expand(recorded.members)
    ]
    assert all(recorded.key == one.key for recorded in holding)
    if one.seq in world.ahead:
        assert not holding
    elif spec.kind == "hopping":
        starts = Counter(recorded.start for recorded in holding)
        belongs = set(Reference(spec, []).starts(one.time if spec.own_time else one.stored))
        assert set(starts) <= belongs
        assert max(starts.values(), default=1) == 1
        assert set(starts) == belongs or one.seq in world.late
    elif spec.kind == "sliding":
        assert holding
        assert len(holding) <= -(-spec.size // spec.step)
    else:
        assert len(holding) <= 1
        assert holding or one.seq in world.late
        assert not holding or spec.own_time or one.seq not in world.late
