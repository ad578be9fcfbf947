"""What a front does for one stream, whichever front it is."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from front_world import CALL, MIB, STREAM, Ear, Guest, failure, fronted, settled, status_of
from waiting import BOUND, eventually

from aipod.rpc.front import RawStream

# Of a message that is larger than what a peer takes without reading, a part stays here until it reads.
LARGE = bytes(16 * MIB)
UNLIMITED = {"max_receive_message_length": -1}


class Ears:
    """Makes handlers, and keeps them for the test to look at."""

    def __init__(self, kind: type[Ear] = Ear) -> None:
        self._kind = kind
        self.made: list[Ear] = []

    def __call__(self, stream: RawStream) -> Ear:
        self.made.append(self._kind(stream))
        return self.made[-1]

    def one(self) -> Ear:
        eventually(lambda: self.made)
        [ear] = self.made
        return ear


class Parrot(Ear):
    """Says what it hears, and ends when the peer does."""

    def received(self, message: bytes) -> None:
        self.say(message)

    def half_closed(self) -> None:
        self.stream.finish()


class TestMessages:
    def test_they_go_both_ways_in_their_order(self, front: str) -> None:
        messages = [str(number).encode() for number in range(500)]
        with fronted(front, opener=Parrot) as (over, address), Guest(address) as guest:
            stream = guest.open(*messages, half_close=True)
            assert list(stream) == messages
            assert stream.code() is grpc.StatusCode.OK
            settled(over)

    def test_many_streams_go_side_by_side(self, front: str) -> None:
        with fronted(front, opener=Parrot) as (_, address), Guest(address) as guest:
            streams = [guest.open(*[bytes([number])] * 20, half_close=True) for number in range(100)]
            assert [list(stream) for stream in streams] == [[bytes([number])] * 20 for number in range(100)]

    def test_nothing_is_a_message_too(self, front: str) -> None:
        with fronted(front, opener=Parrot) as (_, address), Guest(address) as guest:
            assert list(guest.open(b"", b"x", b"", half_close=True)) == [b"", b"x", b""]

    def test_the_peer_learns_that_it_is_open_before_anything_is_said(self, front: str) -> None:
        with fronted(front) as (_, address), Guest(address) as guest:
            assert tuple(guest.open(timeout=BOUND).initial_metadata()) == ()

    def test_who_talks_is_known(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears) as (_, address), Guest(address) as guest:
            guest.open(metadata=[("key", "value")], timeout=BOUND)
            stream = ears.one().stream
            assert stream.method == STREAM
            assert stream.peer.startswith("ipv4:127.0.0.1:")
            assert dict(stream.metadata)["key"] == "value"
            assert stream.deadline is not None
            assert list(stream.identities) == []

    def test_one_that_is_too_large_ends_its_stream_and_no_other(self, front: str) -> None:
        with fronted(front, opener=Parrot, max_message_bytes=1000) as (_, address), Guest(address) as guest:
            other = guest.open(b"x")
            assert next(other) == b"x"
            assert status_of(list, guest.open(bytes(1001))) == "RESOURCE_EXHAUSTED"
            assert guest.call(b"y") == b"y"
            assert not other.done()

    def test_a_method_with_one_request_and_many_replies_is_a_stream_too(self, front: str) -> None:
        class Count(Ear):
            def received(self, message: bytes) -> None:
                self.say(*(bytes([number]) for number in range(int(message))))
                self.stream.finish()

        with fronted(front, opener=Count) as (_, address), Guest(address) as guest:
            assert list(guest.channel.unary_stream(STREAM)(b"5")) == [bytes([number]) for number in range(5)]


class TestWaking:
    def test_all_that_many_threads_say_arrives_once_and_in_each_ones_order(self, front: str) -> None:
        class Careful(Ear):
            inside = threading.Lock()
            clashes = 0

            def next_message(self) -> bytes | None:
                if not self.inside.acquire(blocking=False):
                    Careful.clashes += 1
                    return None
                try:
                    return super().next_message()
                finally:
                    self.inside.release()

        ears = Ears(Careful)
        with fronted(front, opener=ears) as (_, address), Guest(address) as guest:
            stream = guest.open()
            ear = ears.one()

            def talk(talker: int) -> None:
                for number in range(300):
                    ear.say(f"{talker} {number}".encode())

            talkers = [threading.Thread(target=talk, args=(talker,)) for talker in range(8)]
            for thread in talkers:
                thread.start()
            heard = [next(stream).decode().split() for _ in range(8 * 300)]
            for thread in talkers:
                thread.join()
        assert not Careful.clashes, "two threads asked at a time"
        for talker in range(8):
            assert [int(number) for who, number in heard if int(who) == talker] == list(range(300))

    def test_what_waits_when_a_message_has_left_can_leave_together(self, front: str) -> None:
        class Gathering(Ear):
            def next_message(self) -> bytes | None:
                gathered = b"".join(self.outbox.popleft() for _ in range(len(self.outbox)))
                return gathered or None

        ears = Ears(Gathering)
        with fronted(front, opener=ears) as (over, address), Guest(address, **UNLIMITED) as guest:
            stream = guest.open()
            ear = ears.one()
            ear.say(LARGE)
            eventually(lambda: over.counters()["sends"])
            ear.say(b"a")
            ear.say(b"b")
            ear.say(b"c")
            assert [next(stream) for _ in range(2)] == [LARGE, b"abc"]

    def test_what_is_said_after_a_silence_is_sent_too(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears) as (over, address), Guest(address) as guest:
            stream = guest.open()
            ear = ears.one()
            for number in range(5):
                ear.say(bytes([number]))
                assert next(stream) == bytes([number])
                eventually(lambda: not over.counters()["sends"])

    def test_a_wake_up_within_the_handler_is_none_too_many(self, front: str) -> None:
        class Eager(Parrot):
            def next_message(self) -> bytes | None:
                message = super().next_message()
                if message is not None and len(message) < 5:
                    self.say(message + b"x")
                return message

        with fronted(front, opener=Eager) as (_, address), Guest(address) as guest:
            stream = guest.open(b"x")
            assert [next(stream) for _ in range(5)] == [b"x" * count for count in range(1, 6)]

    def test_what_is_said_while_the_handler_is_made_is_sent(self, front: str) -> None:
        class Greeter(Ear):
            def __init__(self, stream: RawStream) -> None:
                super().__init__(stream)
                self.say(b"hello")

        with fronted(front, opener=Greeter) as (_, address), Guest(address) as guest:
            assert next(guest.open()) == b"hello"


class TestHolding:
    def test_a_peer_that_is_held_waits(self, front: str) -> None:
        class Shy(Ear):
            def received(self, message: bytes) -> None:
                super().received(message)
                self.stream.hold(True)

        ears = Ears(Shy)
        with fronted(front, opener=ears) as (_, address), Guest(address) as guest:
            taken: list[int] = []

            def requests() -> Any:
                for number in range(1000):
                    taken.append(number)
                    yield bytes(200_000)

            guest.pour(requests())
            ear = ears.one()
            for wanted in range(1, 6):
                eventually(lambda wanted=wanted: len(ear.heard) == wanted)
                # What was on its way has come when calls that began later are answered.
                assert guest.call(b"x") == b"x"
                assert len(ear.heard) == wanted
                ear.stream.hold(False)
            assert len(taken) < 1000, "the peer did not wait"

    def test_from_another_thread_it_lets_one_message_through_at_most(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears) as (_, address), Guest(address) as guest:
            go = threading.Event()

            def requests() -> Any:
                go.wait(BOUND)
                yield from (bytes([number]) for number in range(20))

            guest.pour(requests())
            ear = ears.one()
            ear.stream.hold(True)
            go.set()
            assert guest.call(b"x") == b"x"
            assert len(ear.heard) <= 1
            ear.stream.hold(False)
            eventually(lambda: len(ear.heard) == 20)
            assert ear.heard == [bytes([number]) for number in range(20)]

    def test_to_go_on_twice_reads_nothing_twice(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears) as (_, address), Guest(address) as guest:
            guest.open(b"a", b"b", b"c")
            ear = ears.one()
            for held in (True, True, False, False, True, False):
                ear.stream.hold(held)
            eventually(lambda: len(ear.heard) == 3)
            assert ear.heard == [b"a", b"b", b"c"]

    def test_who_holds_its_peer_still_hears_that_it_is_gone(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears) as (over, address), Guest(address) as guest:
            stream = guest.open()
            ear = ears.one()
            ear.stream.hold(True)
            stream.cancel()
            settled(over)
            assert ear.ends[-1] == "gone"


class TestTheEnd:
    def test_it_comes_with_its_status_after_all_that_was_to_be_said(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears) as (over, address), Guest(address) as guest:
            stream = guest.open()
            ear = ears.one()
            ear.outbox.extend(bytes([number]) * 100_000 for number in range(5))
            ear.stream.finish("ABORTED", "enough: 够了", [("key", "value"), ("key-bin", b"\0")])
            ear.stream.finish("OK")
            assert [next(stream)[:1] for _ in range(5)] == [bytes([number]) for number in range(5)]
            error = failure(next, stream)
            assert error.code() is grpc.StatusCode.ABORTED
            assert error.details() == "enough: 够了"
            assert dict(error.trailing_metadata()) == {"key": "value", "key-bin": b"\0"}
            settled(over)
            assert "gone" not in ear.ends

    def test_a_handler_may_end_it_while_it_is_made(self, front: str) -> None:
        class Closed(Ear):
            def __init__(self, stream: RawStream) -> None:
                super().__init__(stream)
                stream.finish("PERMISSION_DENIED", "not you")

        with fronted(front, opener=Closed) as (over, address), Guest(address) as guest:
            assert status_of(list, guest.open(b"x")) == "PERMISSION_DENIED"
            settled(over)

    def test_nothing_is_heard_after_it(self, front: str) -> None:
        class Curt(Ear):
            def received(self, message: bytes) -> None:
                super().received(message)
                self.stream.finish()

        ears = Ears(Curt)
        with fronted(front, opener=ears) as (over, address), Guest(address) as guest:
            assert list(guest.open(*[b"x"] * 100)) == []
            settled(over)
            assert ears.one().heard == [b"x"]
            assert ears.one().ends == []

    def test_one_that_cannot_travel_is_told_to_who_wanted_it(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears) as (_, address), Guest(address) as guest:
            stream = guest.open()
            with pytest.raises(KeyError):
                ears.one().stream.finish("NO_SUCH_STATUS")
            with pytest.raises(ValueError, match="cannot travel"):
                ears.one().stream.finish("OK", "", [("Upper", "case")])
            ears.one().stream.finish()
            assert list(stream) == []

    def test_a_peer_that_half_closes_still_listens(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears) as (_, address), Guest(address) as guest:
            stream = guest.open(half_close=True)
            ear = ears.one()
            eventually(lambda: ear.ends == ["half closed"])
            ear.say(b"still there?")
            assert next(stream) == b"still there?"
            ear.stream.finish()
            assert list(stream) == []

    def test_one_that_is_finished_and_not_read_ends_with_its_peer(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears) as (over, address), Guest(address, **UNLIMITED) as guest:
            stream = guest.open()
            ear = ears.one()
            ear.say(LARGE)
            eventually(lambda: over.counters()["sends"])
            ear.stream.finish("ABORTED")
            stream.cancel()
            settled(over)


class TestGone:
    def gone(self, front: str, leave: Callable[[Any, Guest], object], **options: Any) -> None:
        ears = Ears()
        with fronted(front, opener=ears) as (over, address), Guest(address) as guest:
            stream = guest.open(b"x", **options)
            ear = ears.one()
            eventually(lambda: ear.heard)
            leave(stream, guest)
            settled(over)
            eventually(lambda: "gone" in ear.ends)
            # One that is gone may look half closed at first.
            assert ear.ends in (["gone"], ["half closed", "gone"])
            ear.say(b"too late")
            ear.stream.hold(True)
            ear.stream.hold(False)
            ear.stream.finish("INTERNAL", "too late")
            assert ear.ends.count("gone") == 1
            assert ear.stream.peer == ""

    def test_a_peer_that_cancels_is(self, front: str) -> None:
        self.gone(front, lambda stream, guest: stream.cancel())

    def test_a_peer_whose_deadline_passes_is(self, front: str) -> None:
        self.gone(front, lambda stream, guest: None, timeout=0.3)

    def test_a_peer_whose_connection_breaks_is(self, front: str) -> None:
        self.gone(front, lambda stream, guest: guest.leave())

    def test_who_is_open_when_the_front_stops_hears_of_it_before_it_has_stopped(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears) as (over, address), Guest(address) as guest:
            guest.open(b"x")
            eventually(lambda: ears.made and ears.one().heard)
            over.stop(0.0)
            assert ears.one().ends[-1] == "gone"

    def test_a_stream_that_is_over_is_kept_by_nobody(self, front: str) -> None:
        made: list[weakref.ref[Ear]] = []

        def opener(stream: RawStream) -> Ear:
            ear = Ear(stream)
            made.append(weakref.ref(ear))
            return ear

        with fronted(front, opener=opener) as (over, address), Guest(address) as guest:
            streams = [guest.open(b"x") for _ in range(5)]
            eventually(lambda: len(made) == 5)
            for stream in streams:
                stream.cancel()
            settled(over)
            eventually(lambda: not any(ear() for ear in made))


class TestFailures:
    @pytest.mark.parametrize("where", ["opener", "received", "next_message", "half_closed", "a wrong message"])
    def test_a_handler_that_raises_ends_its_own_stream(self, front: str, where: str, caplog: Any) -> None:
        class Bad(Ear):
            def __init__(self, stream: RawStream) -> None:
                super().__init__(stream)
                if where == "opener" and not ears.made:
                    ears.made.append(self)
                    raise ValueError("opener")

            def received(self, message: bytes) -> None:
                if where == "received":
                    raise ValueError("received")
                self.say(message)

            def next_message(self) -> Any:
                message = super().next_message()
                if where == "next_message" and message:
                    raise ValueError("next_message")
                return 5 if where == "a wrong message" and message else message

            def half_closed(self) -> None:
                if where == "half_closed":
                    raise ValueError("half_closed")

        ears = Ears(Bad)
        with fronted(front, opener=ears) as (over, address), Guest(address) as guest:
            good = guest.open() if where != "opener" else None
            assert status_of(list, guest.open(b"x", half_close=where == "half_closed")) == "INTERNAL"
            assert good is None or not good.done()
            assert guest.call(b"y") == b"y"
            eventually(lambda: over.counters()["streams"] == (good is not None))
        assert "Traceback" in caplog.text

    def test_more_streams_than_may_be_open_are_refused_until_one_ends(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears, max_streams=3) as (over, address), Guest(address) as guest:
            streams = [guest.open() for _ in range(3)]
            eventually(lambda: len(ears.made) == 3)
            assert status_of(list, guest.open()) == "RESOURCE_EXHAUSTED"
            assert guest.call(b"x", method=CALL) == b"x"
            streams[1].cancel()
            eventually(lambda: over.counters()["streams"] == 2)
            guest.open(timeout=BOUND).initial_metadata()
            assert len(ears.made) == 4

    def test_one_that_cannot_send_what_is_too_large_ends(self, front: str) -> None:
        ears = Ears()
        with fronted(front, opener=ears, max_sent_bytes=1000) as (over, address), Guest(address) as guest:
            stream = guest.open()
            ears.one().say(bytes(1001))
            assert status_of(list, stream) == "RESOURCE_EXHAUSTED"
            settled(over)
            assert ears.one().ends[-1] == "gone"
