"""Dead letters: as they were, once, and back again."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_results import bodies, connected, make_stream, run

from aipod.errors import ConfigError, ModelError, Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.dead import DeadLetter, DeadLetters
from aipod.stream.letters import read_letter, write_letter
from aipod.stream.message import Message
from aipod.stream.origin import mark_of
from aipod.stream.sinks.publishing import wire_bytes


def message_of(seq: int, data: bytes = b"data", subject: str = "s.a", **headers: str) -> Message:
    return Message(
        seq, 1_700_000_000.25, subject, data, {name.replace("_", "-"): value for name, value in headers.items()}
    )


async def letters_of(connection: Connection, name: str, **more: Any) -> DeadLetters:
    """The dead letters of a task, whose source is a stream that there is."""
    if not (await connection.api("STREAM.NAMES", {"subject": f"{name}.>"})).get("streams"):
        await make_stream(connection, name, f"{name}.>")
    return DeadLetters(connection, "t", f"dead.{name}", source=name, **more)


async def everything(letters: DeadLetters, *arguments: Any) -> list[DeadLetter]:
    async with aclosing(letters.list(*arguments)) as found:
        return [letter async for letter in found]


async def fill(connection: Connection, letters: DeadLetters, name: str, count: int) -> None:
    """Publish messages to the source, alternating between two subjects, and bury all of them."""
    for n in range(1, count + 1):
        subject = f"{name}.{'ab'[n % 2]}"
        acknowledged = await connection.js.publish(subject, b"%d" % n)
        await letters.bury(Message(acknowledged.seq, 1.5, subject, b"%d" % n), "why")


def test_a_letter_has_the_message_as_it_was_and_says_why(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            error = ModelError("boom", "ValueError")
            error.error_id = "abc123"
            message = message_of(
                7, b"\0\xff", "s.ü", Plain="x y", Odd="ключ\r\n% ", Nats_Msg_Id="id", Aipod_Task="other"
            )
            await letters.bury(message, "it did not fit: größer\r\nthan 100%", error)
            [letter] = await everything(letters)
            assert letter == DeadLetter(
                seq=letter.seq,
                task="t",
                reason="it did not fit: größer\r\nthan 100%",
                error="ModelError",
                error_id="abc123",
                stream=name,
                sequence=7,
                subject="s.ü",
                stored=1_700_000_000.25,
                data=b"\0\xff",
                headers={"Plain": "x y", "Odd": "ключ\r\n% ", "Aipod-Task": "other"},
            )
            [raw] = await bodies(connection, f"dead-{name}")
            assert raw.headers["Nats-Msg-Id"] == "dead/t/7"
            assert raw.headers["Plain"] == "x y"
            assert all(value.isascii() and value.isprintable() for value in raw.headers.values())

    run(work())


def test_a_message_that_is_buried_twice_is_there_once(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            for _ in range(2):  # as another process would, after a crash
                letters = await letters_of(connection, name)
                for _ in range(2):
                    await letters.bury(message_of(7), "why")
            assert await letters.count() == 1

    run(work())


@given(
    reason=st.text(),
    headers=st.dictionaries(
        st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True), st.text(max_size=50), max_size=5
    ),
)
def test_any_reason_and_header_survive_as_plain_ascii(reason: str, headers: dict[str, str]) -> None:
    written, data = write_letter(Message(1, 0.0, "s", b"x", headers), "t", "S", reason, None, 1 << 20)
    assert all(value.isascii() and value.isprintable() and len(value) <= 1000 for value in written.values())
    letter = read_letter(5, {name: value.strip() for name, value in written.items()}, data)
    assert letter is not None
    surrogates = any(0xD800 <= ord(character) < 0xE000 for character in reason + "".join(headers.values()))
    if not surrogates:
        assert letter.headers == {
            name: value for name, value in headers.items() if not name.lower().startswith("nats-")
        }
        reason = reason.strip()
        assert letter.reason == reason or (letter.reason.endswith("...") and reason.startswith(letter.reason[:-3]))


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ü", "a\r\nb"])
def test_a_header_that_no_message_can_have_is_left_behind(name: str) -> None:
    written, data = write_letter(Message(1, 0.0, "s", b"x", {name: "1", "Fine": "2"}), "t", "S", "why", None, 1 << 20)
    letter = read_letter(5, written, data)
    assert letter is not None
    assert letter.headers == {"Fine": "2"}


def test_what_does_not_fit_is_left_out_and_said_so(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            limit = connection.nc.max_payload
            await letters.bury(message_of(1, b"x" * limit), "why")
            await letters.bury(message_of(2, b"x", H="y" * 60_000), "why")
            await letters.bury(message_of(3, b"x" * (limit - 2000), H="y" * 5000), "why")
            await letters.bury(message_of(4, b"x", H="y"), "why" * 1000)
            found = await everything(letters)
            assert [letter.left_out for letter in found] == [("data",), ("headers",), ("headers",), ()]
            assert [len(letter.data) for letter in found] == [0, 1, limit - 2000, 1]
            assert len(found[3].reason) == 512
            assert connection.generation == 1

    run(work())


def test_a_stream_for_small_messages_still_takes_letters(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            await make_stream(connection, f"D{name}", f"dead.{name}", max_msg_size=1000)
            await letters.bury(message_of(1, b"x" * 5000), "why")
            [letter] = await everything(letters)
            assert (letter.left_out, letter.data) == (("data",), b"")
            other = await letters_of(connection, f"{name}2")
            await make_stream(connection, f"E{name}", f"dead.{name}2", max_msg_size=50)
            with pytest.raises(ConfigError, match="too few for any dead letter"):
                await other.bury(message_of(1), "why")

    run(work())


def test_a_stream_is_made_only_if_asked_and_again_if_it_goes(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            with pytest.raises(Unavailable, match="no stream takes subject"):
                await (await letters_of(connection, name, create=False)).bury(message_of(1), "why")
            letters = await letters_of(connection, name)
            await letters.bury(message_of(1), "why")
            await connection.api(f"STREAM.DELETE.dead-{name}")
            with pytest.raises(Unavailable):
                await letters.bury(message_of(2), "why")
            await letters.bury(message_of(2), "why")
            assert await letters.count() == 1

    run(work())


def test_letters_are_listed_in_order_by_subject_and_up_to_a_limit(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            assert await everything(letters) == []
            assert await letters.count() == 0
            await fill(connection, letters, name, 6)
            await connection.js.publish(f"dead.{name}", b"not a letter")
            others = DeadLetters(connection, "other", f"dead.{name}", source=name)
            await others.bury(message_of(99), "why")
            assert [letter.sequence for letter in await everything(letters)] == [1, 2, 3, 4, 5, 6]
            assert [letter.sequence for letter in await everything(letters, 2)] == [1, 2]
            assert [letter.sequence for letter in await everything(letters, 2, f"{name}.a")] == [2, 4]
            assert [letter.sequence for letter in await everything(letters, None, "*.b")] == [1, 3, 5]
            assert await everything(letters, 0) == []
            assert [letter.sequence for letter in await everything(others)] == [99]

    run(work())


def test_a_replay_puts_messages_back_where_they_were_and_removes_their_letters(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            await connection.js.publish(f"{name}.a", b"1", headers={"Nats-Msg-Id": "one", "H": "x", "Aipod-Task": "up"})
            message = Message(
                1, 1.5, f"{name}.a", b"1", {"Nats-Msg-Id": "one", "H": "x", "Ü": "no", "Aipod-Task": "up"}
            )
            await letters.bury(message, "why")
            assert await letters.replay() == 1
            assert await letters.count() == 0
            assert await letters.replay() == 0
            [_, back] = await bodies(connection, name)
            assert (back.subject, back.data) == (f"{name}.a", b"1")
            assert re.fullmatch(rf"replay/dead-{name}/1/[0-9a-f]{{8}}", back.headers["Nats-Msg-Id"])
            expected = {"H": "x", "Aipod-Task": "up"}
            assert {key: back.headers[key] for key in expected} == expected
            assert not [key for key in back.headers if key.startswith("Aipod-") and key != "Aipod-Task"]

    run(work())


def test_a_replay_takes_only_what_it_was_asked_for(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            await fill(connection, letters, name, 8)
            assert await letters.replay(1, f"{name}.a") == 1
            assert await letters.replay(None, f"{name}.a") == 3
            assert [letter.sequence for letter in await everything(letters)] == [1, 3, 5, 7]
            assert await letters.replay(3) == 3
            assert [letter.sequence for letter in await everything(letters)] == [7]
            assert [message.data for message in await bodies(connection, name)][8:] == [
                b"2",
                b"4",
                b"6",
                b"8",
                b"1",
                b"3",
                b"5",
            ]

    run(work())


def test_a_replay_that_was_interrupted_puts_nothing_back_twice(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            await fill(connection, letters, name, 5)
            api = connection.api

            async def broken(what: str, *arguments: Any, **more: Any) -> Any:
                if what.startswith("STREAM.MSG.DELETE") and len(await bodies(connection, name)) == 8:
                    raise Unavailable("cut here")  # the message is back, and its letter is still there
                return await api(what, *arguments, **more)

            connection.api = broken  # type: ignore[method-assign]
            with pytest.raises(Unavailable, match="cut here"):
                await letters.replay()
            connection.api = api  # type: ignore[method-assign]
            assert await letters.count() == 3
            assert await letters.replay() == 2
            assert await letters.count() == 0
            assert [message.data for message in await bodies(connection, name)][5:] == [b"1", b"2", b"3", b"4", b"5"]

    run(work())


def test_a_replay_from_a_stream_that_was_made_anew_is_no_repetition_of_one_from_the_old(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            for _ in range(2):
                letters = await letters_of(connection, name)
                await fill(connection, letters, name, 3)
                assert await letters.replay() == 3
                await connection.api(f"STREAM.DELETE.dead-{name}")
            assert [message.data for message in await bodies(connection, name)] == [b"1", b"2", b"3"] * 4

    run(work())


def test_two_replays_at_once_put_each_message_back_once(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            await fill(connection, letters, name, 20)
            counts = await asyncio.gather(letters.replay(), (await letters_of(connection, name)).replay())
            assert sum(counts) == 20
            assert await letters.count() == 0
            assert sorted(int(message.data) for message in (await bodies(connection, name))[20:]) == list(range(1, 21))

    run(work())


def test_a_letter_whose_message_the_source_takes_for_another_stays(nats: Any, caplog: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            await fill(connection, letters, name, 2)
            created = (await connection.api(f"STREAM.INFO.dead-{name}"))["created"]
            taken = {"Nats-Msg-Id": f"replay/dead-{name}/1{mark_of(f'dead-{name}@{created}')}"}
            await connection.js.publish(f"{name}.b", b"another", headers=taken)
            assert await letters.replay() == 1
            assert [letter.sequence for letter in await everything(letters)] == [1]
            assert [message.data for message in await bodies(connection, name)] == [b"1", b"2", b"another", b"2"]

    run(work())
    assert f"message 1 of stream {name} is not put back: the stream takes it for message 3" in caplog.text


def test_a_message_that_is_too_large_to_be_put_back_holds_up_no_other(nats: Any, caplog: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            largest = b"x" * connection.nc.max_payload
            for data in (largest, b"2", b"3"):
                stored = await connection.js.publish(f"{name}.a", data)
                await letters.bury(Message(stored.seq, 1.5, f"{name}.a", data), "why")
            assert await letters.replay(1) == 1
            assert await letters.replay() == 1
            assert [letter.sequence for letter in await everything(letters)] == [1]
            assert [message.data for message in await bodies(connection, name)][3:] == [b"2", b"3"]
            assert connection.generation == 1

    run(work())
    assert f"message 1 of stream {name} is too large to be put back" in caplog.text


def test_of_what_never_had_a_letter_there_are_none(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name, create=False)
            assert (await letters.count(), await everything(letters), await letters.replay()) == (0, [], 0)

    run(work())


@pytest.mark.parametrize(
    ("task", "headers"), [("t", {"Region": "n" * 200}), ("t" * 90, {}), ("t" * 90, {"Region": "n" * 20_000})]
)
def test_a_letter_of_any_size_is_stored_and_the_connection_unharmed(
    nats: Any, task: str, headers: dict[str, str]
) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            await make_stream(connection, name, f"{name}.>")
            letters = DeadLetters(connection, task, f"dead.{name}{task}", source=name)
            limit = connection.nc.max_payload
            written, _ = write_letter(Message(1, 1.5, "s", b"", headers), task, name, "why", None, limit)
            around = wire_bytes(written)
            for seq, more in enumerate(range(-250, 60, 10), 1):
                await letters.bury(Message(seq, 1.5, "s", b"x" * (limit - around + more), headers), "why")
            assert await letters.count() == 31
            assert connection.generation == 1

    run(work())


def test_what_dies_again_during_a_replay_is_not_put_back_by_it(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            await fill(connection, letters, name, 3)
            api = connection.api

            async def bury_another(what: str, *arguments: Any, **more: Any) -> Any:
                if what.startswith("STREAM.MSG.DELETE"):
                    last = (await bodies(connection, name))[-1]
                    await letters.bury(Message(last.seq, 1.5, last.subject, last.data), "again")
                return await api(what, *arguments, **more)

            connection.api = bury_another  # type: ignore[method-assign]
            assert await letters.replay() == 3
            assert await letters.count() == 3

    run(work())


def test_what_was_too_large_to_keep_is_put_back_from_the_source(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            large = b"x" * (connection.nc.max_payload - 100)
            for n in (1, 2):
                await connection.js.publish(f"{name}.a", large, headers={"N": str(n)})
                await letters.bury(Message(n, 1.5, f"{name}.a", large, {"N": str(n)}), "why")
            await connection.api(f"STREAM.MSG.DELETE.{name}", {"seq": 1})
            assert await letters.replay() == 1
            [letter] = await everything(letters)
            assert (letter.sequence, letter.left_out) == (1, ("headers", "data"))
            back = await connection.js.get_msg(name, 3)
            assert (back.data, back.headers["N"]) == (large, "2")

    run(work())


def test_a_stream_that_lets_nothing_be_removed_is_not_replayed_for_ever(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            await make_stream(connection, f"D{name}", f"dead.{name}", deny_delete=True)
            await fill(connection, letters, name, 2)
            with pytest.raises(ConfigError, match="denies removal"):
                await letters.replay()
            assert len(await bodies(connection, name)) == 2

    run(work())


def test_a_source_that_is_gone_keeps_its_letters(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            letters = await letters_of(connection, name)
            await fill(connection, letters, name, 2)
            await connection.api(f"STREAM.DELETE.{name}")
            with pytest.raises(Unavailable, match="no stream takes subject"):
                await letters.replay()
            assert await letters.count() == 2

    run(work())
