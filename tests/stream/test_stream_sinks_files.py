"""Results in files: on disk when it is said, whole or not at all, and read back."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from stream_results import result_of, run

from aipod.errors import ConfigError, SerializationError, StorageError, Unavailable
from aipod.stream.errors import Diverged
from aipod.stream.result import Result
from aipod.stream.sinks import files as module
from aipod.stream.sinks import journal
from aipod.stream.sinks.files import FileSink
from aipod.stream.sinks.interface import Record

LATER = 4e9


@asynccontextmanager
async def opened(directory: Path, task: str = "t", **more: Any) -> AsyncIterator[FileSink]:
    sink = FileSink(str(directory), task, **more)
    try:
        await sink.open()
        yield sink
    finally:
        await sink.close()


def lines(directory: Path) -> list[bytes]:
    return [line for file in sorted(directory.glob("*.jsonl")) for line in file.read_bytes().splitlines()]


def ids(recorded: list[Any]) -> list[str]:
    return [one.key + one.id for one in recorded]


def test_a_result_is_a_line_that_says_when_it_was_recorded(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "a" / "b") as sink:
            assert isinstance(sink, Record)
            await sink.write(result_of(1, 3, "ключ\n", value={"x": float("nan"), "text": "a\nb\0"}))
            [line] = lines(tmp_path / "a" / "b")
            document = json.loads(line)
            assert next(iter(document)) == "recorded_at"
            assert document["recorded_at"] > 1e9
            assert Result.read(line).recorded.key == "ключ\n"

    run(work())


def test_the_same_result_written_again_is_there_once(tmp_path: Path) -> None:
    async def work() -> None:
        for _ in range(2):  # the second time as another process would, that has not even recalled
            async with opened(tmp_path) as sink:
                for _ in range(2):
                    await sink.write(result_of(1, 3))
        async with opened(tmp_path) as sink:
            with pytest.raises(Diverged) as caught:
                await sink.write(result_of(1, 4))
            assert caught.value.recorded.members == ((1, 3),)
        assert len(lines(tmp_path)) == 1

    run(work())


def test_the_last_of_each_key_and_all_that_is_recent_is_recalled(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as sink:
            for first in (1, 3, 5):
                await sink.write(result_of(first, first + 1, "a"))
                await sink.write(result_of(first, first, "b"))
            await sink.write(result_of(7, 7, "b", reason="early"))
        times = [json.loads(line)["recorded_at"] for line in lines(tmp_path)]
        async with opened(tmp_path) as sink:
            assert ids(await sink.recall(LATER, 100)) == ["as5", "bs5", "bs7"]
            assert ids(await sink.recall(LATER, 3)) == ["as3", "as5", "bs5", "bs7"]
            recalled = await sink.recall(times[3], 100)
            assert ids(recalled) == ["bs3", "as5", "bs5", "bs7"]
            assert recalled[0] == result_of(3, 3, "b").recorded
            again = await sink.stored(recalled[0])
            assert again is not None and again.identity == "t/b/s3/0"
            assert await sink.stored(result_of(1, 2, "a").recorded) is None

    run(work())


def test_files_that_are_full_or_old_are_followed_by_others(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path, max_bytes=4096) as sink:
            for first in range(1, 41):
                await sink.write(result_of(first, first))
        sizes = [file.stat().st_size for file in sorted(tmp_path.glob("*.jsonl"))]
        assert len(sizes) > 1
        assert all(4096 <= size < 4096 + 300 for size in sizes[:-1])
        async with opened(tmp_path, max_age=0.0) as sink:
            await sink.write(result_of(41, 41))
            assert ids(await sink.recall(0, 0)) == [f"ks{first}" for first in range(1, 42)]
        assert [file.name[:7] for file in sorted(tmp_path.glob("*.jsonl"))] == [
            f"{number:06d}-" for number in range(1, len(sizes) + 2)
        ]

    run(work())


def test_a_file_goes_on_where_it_was_left(tmp_path: Path) -> None:
    async def work() -> None:
        for first in (1, 2, 3):
            async with opened(tmp_path) as sink:
                await sink.write(result_of(first, first))
        assert len(list(tmp_path.glob("*.jsonl"))) == 1
        assert len(lines(tmp_path)) == 3

    run(work())


@pytest.mark.parametrize("torn", [b'{"recorded_at":17', b"\0" * 100, b"\0" * 50 + b"\n" + b"\0" * 50 + b"\n\0"])
def test_what_a_crash_left_is_cut_off(tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with opened(tmp_path) as sink:
            await sink.write(result_of(1, 3))
        [file] = tmp_path.glob("*.jsonl")
        whole = file.read_bytes()
        file.write_bytes(whole + torn)
        async with opened(tmp_path) as sink:
            assert file.read_bytes() == whole
            await sink.write(result_of(4, 6))
            assert ids(await sink.recall(0, 0)) == ["ks1", "ks4"]

    run(work())
    assert "of an unfinished line" in caplog.text
    assert str(tmp_path) not in caplog.text


def test_a_file_of_nothing_but_a_torn_line_begins_anew(tmp_path: Path) -> None:
    async def work() -> None:
        (tmp_path / "000001-20250101T000000Z.jsonl").write_bytes(b'{"rec')
        async with opened(tmp_path, max_age=1e9) as sink:
            assert await sink.recall(0, 0) == []
            await sink.write(result_of(1, 3))
        [file] = tmp_path.glob("*.jsonl")
        assert len(file.read_bytes().splitlines()) == 1

    run(work())


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
def test_lines_are_read_backwards_whatever_the_block(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_BLOCK_BYTES", block)
    texts = [b"", b"a", b"b" * 100, b"", b"c" * 63, b"d"]
    (tmp_path / "000001-20250101T000000Z.jsonl").write_bytes(b"\n".join(texts) + b"\n")
    (tmp_path / "000002-20250101T000000Z.jsonl").write_bytes(b"e\nf\ntorn")
    book = journal.Journal(tmp_path, 1 << 20, 1e9)
    found = list(book.backwards())
    assert [line.text for line in found] == [b"f", b"e", *reversed(texts)]
    assert all(book.line_at(line.file, line.offset) == line.text for line in found)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"a": 1}', "no result of a window"),
        (b"hello", "no result of a window"),
        (b'{"recorded_at":1.5,' + result_of(1, 2, task="other").encode()[1:], "task 'other'"),
    ],
)
def test_what_is_not_the_tasks_own_is_refused(tmp_path: Path, line: bytes, says: str) -> None:
    async def work() -> None:
        (tmp_path / "000001-20250101T000000Z.jsonl").write_bytes(line + b"\n")
        async with opened(tmp_path) as sink:
            with pytest.raises(ConfigError, match=f"{says}.*directory of its own"):
                await sink.recall(0, 0)
            with pytest.raises(ConfigError):
                await sink.write(result_of(1, 3))

    run(work())


def test_a_directory_has_one_writer(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path):
            with pytest.raises(Unavailable, match="another process"):
                async with opened(tmp_path):
                    pass
        async with opened(tmp_path) as sink:
            await sink.write(result_of(1, 3))

    run(work())


def test_a_directory_that_cannot_be_used_is_refused_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def work() -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match=r"^file:file/below: .*; name a directory that this user may write to"):
            async with opened(Path("file/below")):
                pass

    run(work())


def test_writes_that_wait_together_share_one_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        original(descriptor)

    original = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)

    async def work() -> None:
        async with opened(tmp_path) as sink:
            await sink.write(result_of(1, 1))
            before = len(synced)
            await asyncio.gather(*(sink.write(result_of(n, n, f"k{n}")) for n in range(2, 202)))
            assert 1 <= len(synced) - before <= 3
        assert len(lines(tmp_path)) == 201

    run(work())


def test_a_full_disk_is_waited_for_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.write
    written = []

    def half_then_full(descriptor: int, data: Any) -> int:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(original(descriptor, data[: len(data) // 2]))
        return written[0]

    async def work() -> None:
        async with opened(tmp_path) as sink:
            await sink.write(result_of(1, 3))
            [file] = tmp_path.glob("*.jsonl")
            whole = file.read_bytes()
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", half_then_full)
                with pytest.raises(Unavailable, match="no room"):
                    await sink.write(result_of(4, 6))
            assert written
            assert file.read_bytes() == whole
            await sink.write(result_of(4, 6))
            assert ids(await sink.recall(0, 0)) == ["ks1", "ks4"]

    run(work())


def test_a_clock_that_is_set_back_changes_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with opened(tmp_path) as sink:
            await sink.write(result_of(1, 3))
        monkeypatch.setattr(module.time, "time", lambda: 1e9)
        async with opened(tmp_path) as sink:
            await sink.write(result_of(4, 6))
        times = [json.loads(line)["recorded_at"] for line in lines(tmp_path)]
        assert times == sorted(times)

    run(work())


def test_one_failed_fsync_fails_every_write_that_it_was_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with opened(tmp_path) as sink:
            await sink.write(result_of(1, 1))
            with monkeypatch.context() as patch:

                def broken(_: int) -> None:
                    raise OSError(errno.EIO, "Input/output error")

                patch.setattr(os, "fsync", broken)
                outcomes = await asyncio.gather(
                    *(sink.write(result_of(n, n, f"k{n}")) for n in (2, 3, 4)), return_exceptions=True
                )
                assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
            for n in (2, 3, 4):
                await sink.write(result_of(n, n, f"k{n}"))
        assert len(lines(tmp_path)) == 4
        assert len(list(tmp_path.glob("*.jsonl"))) == 2

    run(work())


def test_a_file_that_was_removed_is_noticed(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as sink:
            await sink.write(result_of(1, 3))
            [file] = tmp_path.glob("*.jsonl")
            file.unlink()
            with pytest.raises(StorageError, match="removed"):
                await sink.write(result_of(4, 6))
            await sink.write(result_of(4, 6))
        assert len(lines(tmp_path)) == 1

    run(work())


def test_what_no_json_can_say_is_refused_and_hurts_nobody(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as sink:
            with pytest.raises(SerializationError):
                await sink.write(result_of(1, 3, value=1j))
            await sink.write(result_of(1, 3))

    run(work())


def test_what_was_said_to_be_written_survives_a_kill(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, sys
        from stream_results import result_of
        from aipod.stream.sinks.files import FileSink

        async def work():
            sink = FileSink(sys.argv[1], "t", max_bytes=4096)
            await sink.open()
            for n in range(1, 1_000_000):
                await sink.write(result_of(n, n))
                print(n, flush=True)

        asyncio.run(work())
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((os.getcwd(), str(Path(__file__).parent)))}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    while int(process.stdout.readline()) < 50:
        pass
    process.send_signal(signal.SIGKILL)
    said = [50, *map(int, process.communicate()[0].split())]

    async def work() -> None:
        async with opened(tmp_path) as sink:
            recalled = await sink.recall(0, 0)
            assert ids(recalled) == [f"ks{n}" for n in range(1, len(recalled) + 1)]
            assert said[-1] <= len(recalled) <= said[-1] + 1

    run(work())


def test_what_would_be_found_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    async def said(directory: Path) -> str:
        sink = FileSink(str(directory), "t")
        try:
            return await sink.foresee()
        finally:
            await sink.close()

    async def work() -> None:
        assert await said(tmp_path) == "the directory is there"
        assert await said(tmp_path / "a" / "b") == "the directory would be made"
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "file").write_text("")
        for wrong in (tmp_path / "file", tmp_path / "file" / "a", Path("/proc/x")):
            with pytest.raises(ConfigError, match=rf"file:{wrong}: .*; name a directory that this user may write to"):
                await said(wrong)

    run(work())
