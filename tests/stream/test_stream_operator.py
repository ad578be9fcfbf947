"""What becomes of windows: order, back-pressure, poison, letters, retries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from stream_fakes import Limits, Plain, Shelf, World, run, window

from aipod.errors import (
    ConfigError,
    InvalidArgument,
    ModelCrashed,
    ModelError,
    NotInitialized,
    Overloaded,
    SerializationError,
    Unavailable,
)
from aipod.stream import retry as retrying
from aipod.stream.errors import Fenced, TaskStopped, TooLarge
from aipod.stream.message import Message
from aipod.stream.result import Recorded, Result, expand


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.001)


async def total(values: list[int]) -> int:
    return sum(values)


def refusing(*bad: int) -> Callable[[list[int]], Awaitable[int]]:
    async def predict(values: list[int]) -> int:
        if set(bad) & set(values):
            raise InvalidArgument(f"not {sorted(set(bad) & set(values))}")
        return sum(values)

    return predict


def test_a_window_becomes_a_result_and_is_released_after_it_was_recorded() -> None:
    async def look(result: Result) -> None:
        assert not world.released

    world = World(total, [Shelf(look)])
    run(world.run(window(1, 2, 3, 7)))
    (result,) = world.results
    assert (result.value, result.recorded.members, result.dropped) == (13, ((1, 3), (7, 7)), ())
    assert world.released == [1, 2, 3, 7]


def test_windows_of_a_key_are_recorded_in_order_however_soon_the_model_answers() -> None:
    async def main() -> None:
        gates = {value: asyncio.Event() for value in (1, 2, 3)}

        async def predict(values: list[int]) -> int:
            await gates[values[0]].wait()
            return values[0]

        world = World(predict)
        flights = [await world.operator.submit(window(seq)) for seq in (1, 2, 3)]
        while len(world.asked) < 3:
            await asyncio.sleep(0)
        for seq in (3, 2, 1):
            assert not world.results
            gates[seq].set()
            await asyncio.sleep(0)
        await world.operator.drain()
        assert [result.value for result in world.results] == [1, 2, 3]
        assert all(flight.landed.is_set() for flight in flights)

    run(main())


def test_a_key_that_waits_does_not_hold_up_another() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def predict(values: list[int]) -> int:
            if values == [1]:
                await gate.wait()
            return values[0]

        world = World(predict)
        await world.operator.submit(window(1, key="slow"))
        quick = await world.operator.submit(window(2, key="quick"))
        await quick.landed.wait()
        assert [result.recorded.key for result in world.results] == ["quick"]
        gate.set()
        await world.operator.drain()

    run(main())


def test_no_more_than_so_many_windows_are_in_flight_and_the_next_one_waits() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def predict(values: list[int]) -> int:
            await gate.wait()
            return 0

        world = World(predict, concurrency=2)
        for seq in (1, 2):
            await world.operator.submit(window(seq, key=str(seq)))
        third = asyncio.ensure_future(world.operator.submit(window(3, key="3")))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not third.done() and world.operator.in_flight == 2 and len(world.asked) == 2
        gate.set()
        await third
        await world.operator.drain()

    run(main())


def test_one_bad_message_of_32_leaves_31_in_the_result_and_one_dead_letter() -> None:
    world = World(refusing(17))
    run(world.run(window(*range(1, 33))))
    (result,) = world.results
    assert result.value == sum(range(1, 33)) - 17
    assert (result.recorded.members, result.dropped) == (((1, 32),), ((17, 17),))
    assert world.letters.buried == [(17, "the model does not take it: not [17]")]
    assert world.released == list(range(1, 33))
    assert (world.statistics.poison, world.statistics.dead) == (1, 1)


def test_a_bad_message_is_buried_before_its_window_is_released() -> None:
    world = World(refusing(2))

    async def bury(message: Message, reason: str, error: BaseException | None = None) -> None:
        assert not world.released
        world.letters.buried.append((message.seq, reason))

    world.letters.bury = bury  # type: ignore[method-assign]
    run(world.run(window(1, 2)))
    assert world.released == [1, 2]


def test_a_window_of_bad_messages_alone_gives_letters_and_no_result() -> None:
    world = World(refusing(1, 2, 3))
    run(world.run(window(1, 2, 3), window(4)))
    assert [seq for seq, _ in world.letters.buried] == [1, 2, 3]
    assert [result.value for result in world.results] == [4]
    assert world.released == [1, 2, 3, 4]


def test_a_bad_message_that_several_windows_hold_is_isolated_and_buried_once() -> None:
    world = World(refusing(4), concurrency=1)
    run(world.run(window(1, 2, 3, 4, releases=[1]), window(2, 3, 4, 5, releases=[2, 3, 4, 5])))
    assert [seq for seq, _ in world.letters.buried] == [4]
    assert [result.dropped for result in world.results] == [((4, 4),), ((4, 4),)]
    assert world.asked[-1] == [2, 3, 5], "the second window was asked with what is known to be bad"


def test_what_the_models_code_raises_counts_when_it_comes_again_for_the_same_window() -> None:
    failures = iter([ModelError("by chance")])

    async def predict(values: list[int]) -> int:
        for failure in failures:
            raise failure
        return sum(values)

    world = World(predict)
    run(world.run(window(1, 2)))
    assert world.asked == [[1, 2], [1, 2]]
    assert not world.letters.buried
    assert world.results[0].value == 3


def test_what_the_models_code_raises_again_and_again_is_isolated() -> None:
    async def predict(values: list[int]) -> int:
        if 3 in values:
            raise ModelError("no threes", type="ValueError")
        return sum(values)

    world = World(predict)
    run(world.run(window(1, 2, 3, 4)))
    assert world.letters.buried == [(3, "the model does not take it: ValueError: no threes")]
    assert world.results[0].value == 7


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("away"),
        Overloaded("full"),
        NotInitialized("v1"),
        ModelCrashed("it died"),
        ModelError("CUDA error: an illegal memory access was encountered", type="RuntimeError"),
        ModelError("CUDA out of memory. Tried to allocate 20.00 MiB", type="torch.OutOfMemoryError"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_the_inputs_fault_is_tried_again_and_buries_nothing(error: Exception) -> None:
    failures = iter([error] * 5)

    async def predict(values: list[int]) -> int:
        for failure in failures:
            raise failure
        return sum(values)

    world = World(predict)
    run(world.run(window(1, 2, 3)))
    assert world.asked == [[1, 2, 3]] * 6
    assert not world.letters.buried
    assert world.statistics.retries == 5


def test_a_request_too_large_for_the_server_does_not_go_round_for_ever() -> None:
    async def predict(values: list[int]) -> int:
        if 2 in values:
            raise Overloaded("Received message larger than max (9 vs. 4); send or ask for less at once")
        return sum(values)

    world = World(predict)
    run(world.run(window(1, 2, 3)))
    assert [seq for seq, _ in world.letters.buried] == [2]


def test_an_absent_model_is_said_once_and_once_when_it_is_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "_AWAY_SECONDS", 0.0)
    failures = iter([Unavailable("there is no server")] * 8)

    async def predict(values: list[int]) -> int:
        for failure in failures:
            raise failure
        return 0

    world = World(predict)
    with caplog.at_level(logging.WARNING, "aipod.stream"):
        run(world.run(window(1, key="a"), window(2, key="b")))
    assert [message.partition(" after")[0] for message in caplog.messages] == [
        "the model: there is no server; trying again until it works",
        "the model is back",
    ]


def test_an_error_that_somebody_must_mend_ends_the_operator_and_acknowledges_nothing() -> None:
    async def predict(values: list[int]) -> int:
        raise ConfigError(["wrong"])

    world = World(predict)
    with pytest.raises(ConfigError, match="wrong"):
        run(world.run(window(1), window(2)))
    assert not world.released and not world.results


def test_after_a_failure_no_later_window_is_recorded() -> None:
    async def write(result: Result) -> None:
        if result.recorded.first == 1:
            await asyncio.sleep(0)
            raise Fenced("t")

    world = World(total, [Shelf(write)])
    with pytest.raises(Fenced):
        run(world.run(window(1), window(2), window(3)))
    assert not world.released and not world.results


def test_too_many_dead_letters_stop_the_task_before_the_stream_is_emptied() -> None:
    world = World(refusing(*range(1000)), limits=Limits(max_ratio=0.5, min_count=10, over=100))

    async def main() -> None:
        for first in range(1, 1000, 4):
            world.burial.passed(4)
            await world.operator.submit(window(*range(first, first + 4)))

    with pytest.raises(TaskStopped, match=r"of the last .* messages would be dead letters, more than 50%"):
        run(main())
    assert len(world.letters.buried) < 40
    assert set(world.released) <= {seq for seq, _ in world.letters.buried}


def test_old_dead_letters_do_not_count_for_ever() -> None:
    world = World(refusing(*range(0, 10_000, 10)), limits=Limits(max_ratio=0.5, min_count=10, over=100))

    async def main() -> None:
        for first in range(1, 2000, 10):
            world.burial.passed(10)
            await world.operator.submit(window(*range(first, first + 10)))
        await world.operator.drain()

    run(main())
    assert len(world.letters.buried) == 200


def test_too_many_are_noticed_while_the_bad_are_still_sought() -> None:
    world = World(refusing(*range(10_000)), limits=Limits(max_ratio=0.5, min_count=10, over=20))
    world.burial.passed(20)
    with pytest.raises(TaskStopped):
        run(world.run(window(*range(1, 1025))))
    assert len(world.asked) < 60 and not world.letters.buried


@pytest.mark.parametrize(
    "error", [TooLarge(2_000_000, 1_048_576), SerializationError("result", "a set is not supported")]
)
def test_a_result_that_no_sink_takes_sends_its_members_to_the_dead_letters(error: Exception) -> None:
    async def write(result: Result) -> None:
        if result.recorded.first == 1:
            raise error

    world = World(total, [Shelf(write)])
    run(world.run(window(1, 2), window(3)))
    assert [seq for seq, _ in world.letters.buried] == [1, 2]
    assert all(str(error) in reason and "shelf" in reason for _, reason in world.letters.buried)
    assert [result.value for result in world.results] == [3]
    assert world.released == [1, 2, 3]
    assert world.statistics.too_large == 1


def test_an_early_result_that_is_too_large_buries_nobody() -> None:
    async def write(result: Result) -> None:
        if result.recorded.reason == "early":
            raise TooLarge(2, 1)

    world = World(total, [Shelf(write)])
    run(world.run(window(1, 2, reason="early", final=False, releases=[]), window(1, 2, 3, revision=1)))
    assert not world.letters.buried
    assert world.released == [1, 2, 3]


def test_every_sink_has_the_result_before_anything_is_released_and_the_record_has_it_first() -> None:
    order: list[str] = []

    async def to_record(result: Result) -> None:
        order.append("record")

    async def to_plain(result: Result) -> None:
        assert not world.released
        order.append("plain")

    record = Shelf(to_record)
    plain = Plain(to_plain)
    world = World(total, [plain, record])
    assert world.recording.record is record
    run(world.run(window(1)))
    assert order == ["record", "plain"]
    assert world.released == [1]


def test_a_sink_that_is_away_is_tried_until_it_is_back() -> None:
    failures = iter([Unavailable("the database is away")] * 3)

    async def write(result: Result) -> None:
        for failure in failures:
            raise failure

    world = World(total, [Shelf(write)])
    run(world.run(window(1)))
    assert world.released == [1] and world.statistics.retries == 3


def test_nothing_is_written_or_released_once_the_lease_is_lost() -> None:
    lost = False

    def lead() -> None:
        if lost:
            raise Fenced("t")

    async def predict(values: list[int]) -> int:
        nonlocal lost
        lost = values[0] == 2
        return 0

    world = World(predict, lead=lead)

    async def main() -> None:
        await world.operator.submit(window(1))
        await world.operator.drain()
        await world.run(window(2))

    with pytest.raises(Fenced):
        run(main())
    assert [result.recorded.first for result in world.results] == [1]
    assert world.released == [1]


def test_no_letter_is_sent_once_the_lease_is_lost() -> None:
    def lead() -> None:
        raise Fenced("t")

    world = World(refusing(1), lead=lead)
    with pytest.raises(Fenced):
        run(world.run(window(1)))
    assert not world.letters.buried


def test_what_rests_on_a_window_is_acknowledged_with_it_and_not_before() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def predict(values: list[int]) -> int:
            await gate.wait()
            return 0

        world = World(predict)
        assert not world.operator.after("k", 9), "nothing of the key is in flight"
        await world.operator.submit(window(1))
        await world.operator.submit(window(2))
        assert world.operator.after("k", 9)
        assert not world.operator.after("other", 9)
        gate.set()
        await world.operator.drain()
        assert world.released == [1, 2, 9]

    run(main())


async def admit(recalled: list[Recorded]) -> None:
    """Go on with whatever is recorded."""


@pytest.mark.parametrize("kind", [Shelf, Plain])
def test_a_recorded_result_is_supplied_to_the_other_sinks_that_lack_it(kind: type[Shelf]) -> None:
    record, other = Shelf(), kind()
    world = World(total, [record, other])
    result = Result("t", Recorded("k", "s1", 0, 1.0, 2.0, "full", ((1, 2),)), 3)

    async def main() -> None:
        await record.write(result)
        assert await world.recording.recall(0.0, 0, admit) == [result.recorded]
        await world.recording.supply(result.recorded)
        assert other.results == record.results == [result]

    run(main())


def test_what_another_record_has_already_is_not_supplied_again() -> None:
    record, other = Shelf(), Shelf()
    world = World(total, [record, other])
    result = Result("t", Recorded("k", "s1", 0, 1.0, 2.0, "full", ((1, 2),)), 3)

    async def main() -> None:
        await record.write(result)
        await other.write(result)
        await world.recording.recall(0.0, 0, admit)
        await world.recording.supply(result.recorded)
        assert len(other.results) == 1

    run(main())


@pytest.mark.parametrize("error", [InvalidArgument("not this"), ModelError("it fails", type="KeyError")])
def test_a_result_that_a_second_model_refuses_goes_to_the_dead_letters_and_stops_nothing(error: Exception) -> None:
    tries: list[int] = []

    async def write(result: Result) -> None:
        tries.append(result.recorded.first)
        if result.recorded.first == 1:
            raise error

    world = World(total, [Shelf(), Plain(write)])
    run(world.run(window(1, 2), window(3)))
    assert [seq for seq, _ in world.letters.buried] == [1, 2]
    assert tries.count(1) == (2 if isinstance(error, ModelError) else 1)
    assert world.released == [1, 2, 3]


def test_a_request_that_is_too_large_as_a_whole_is_nobodys_fault_and_buries_nobody() -> None:
    async def predict(values: list[int]) -> int:
        if len(values) > 2:
            raise SerializationError("kwargs", "9 bytes are more than the 4 allowed")
        return sum(values)

    world = World(predict)
    with pytest.raises(ConfigError, match=r"a window of 4 messages is too much for one request .* make the windows"):
        run(world.run(window(1, 2, 3, 4)))
    assert not world.letters.buried and not world.released


def test_what_is_given_up_is_neither_recorded_nor_released() -> None:
    async def main() -> None:
        async def predict(values: list[int]) -> int:
            await asyncio.Event().wait()
            return 0

        world = World(predict)
        for seq in (1, 2):
            await world.operator.submit(window(seq))
        await asyncio.sleep(0)
        await world.operator.close()
        assert world.operator.in_flight == 0
        assert not world.results and not world.released

    run(main())


def test_whoever_watches_learns_of_a_failure_while_nobody_submits() -> None:
    async def main() -> None:
        async def predict(values: list[int]) -> int:
            raise ConfigError(["wrong"])

        world = World(predict)
        await world.operator.submit(window(1))
        with pytest.raises(ConfigError):
            await world.operator.failure()

    run(main())


def test_members_and_releases_agree_with_what_was_recorded() -> None:
    world = World(total, concurrency=3)
    windows = [window(*range(first, first + 5), key=str(first % 3)) for first in range(1, 200, 5)]
    run(world.run(*windows))
    members = [seq for result in world.results for seq in expand(result.recorded.members)]
    assert sorted(members) == sorted(world.released) == list(range(1, 201))


@pytest.mark.parametrize("again", [1, 2])
def test_a_model_that_fails_for_a_moment_costs_no_message(again: int) -> None:
    calls = 0

    async def predict(values: list[int]) -> int:
        nonlocal calls
        calls += 1
        if calls <= 2 or (again == 2 and 7 <= calls <= 8):  # each is asked twice; then both halves pass, and all
            raise ModelError("its database was away", type="OperationalError")
        return sum(values)

    world = World(predict)
    run(world.run(window(*range(1, 33))))
    assert not world.letters.buried
    (result,) = world.results
    assert (result.value, result.dropped) == (sum(range(1, 33)), ())


def test_what_is_given_up_and_goes_on_is_not_recorded_behind_what_is_not() -> None:
    # Up to Python 3.11 a cancellation can be lost in the moment in which what is waited for is done.
    async def main() -> None:
        asked = asyncio.Event()

        async def predict(values: list[int]) -> int:
            if values == [1]:
                await asyncio.Event().wait()
            asked.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return 0

        world = World(predict)
        for seq in (1, 2):
            await world.operator.submit(window(seq))
        await asked.wait()
        await world.operator.close()
        assert not world.results and not world.released
        with pytest.raises(asyncio.CancelledError):
            await world.operator.submit(window(3))

    run(main())


def test_poison_of_a_corrected_window_is_not_remembered_for_ever() -> None:
    # The revision before has settled it, so no open window waits for it any more.
    world = World(refusing(2), concurrency=1)
    before = Recorded("k", "s1", 0, 1.0, 2.0, "full", ((1, 2),))
    corrected = window(1, 2, 3, reason="amended", revision=1, releases=[], amends=before)
    run(world.run(corrected, window(2, 5)))
    assert [result.dropped for result in world.results] == [((2, 2),), ((2, 2),)]
    assert [2, 5] in world.asked


@pytest.mark.parametrize("failing", [0, 1])
def test_every_sink_is_closed_also_where_one_cannot_be(failing: int) -> None:
    closed: list[int] = []

    class Closing(Shelf):
        def __init__(self, number: int) -> None:
            super().__init__()
            self._number = number

        async def close(self) -> None:
            closed.append(self._number)
            if self._number == failing:
                raise OSError("it cannot be closed")

    world = World(total, [Closing(0), Closing(1)])
    with pytest.raises(OSError, match="cannot be closed"):
        run(world.recording.close())
    assert sorted(closed) == [0, 1]
