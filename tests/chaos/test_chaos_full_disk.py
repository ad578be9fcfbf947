"""A disk that is full, in earnest: a tiny one of its own, which takes root to make."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import wounds

from aipod.errors import StorageFull

pytestmark = pytest.mark.chaos

DISK = "8m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can make a tiny disk")
    yield path
    subprocess.run([umount or "umount", "--lazy", str(path)], check=True)


def fill(disk: Path, but: int) -> Path:
    """Leave no more than so many bytes free."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - but))
    return ballast


@pytest.mark.parametrize("free", [0, 4096, 300_000])
def test_a_full_disk_is_said_and_the_old_revision_serves_on(serve, disk, free):
    server = serve(data=disk / "data")
    with server.client() as client:
        client.initialize(number=1, kilobytes=200)
        client.train(number=2, kilobytes=200)
        ballast = fill(disk, but=free)
        for number, write in enumerate((client.initialize, client.train, client.initialize, client.train), 3):
            with pytest.raises(StorageFull, match="no room on the disk of the data path") as error:
                write(number=number, kilobytes=200)
            assert str(disk) not in str(error.value)
            assert client.predict(x=1) == {"x": 1, "number": 2, "whole": True}
            assert not wounds(server.data)
        server.stop(signal.SIGKILL)
        server.start()
        assert client.predict(x=2) == {"x": 2, "number": 2, "whole": True}
        ballast.unlink()
        assert client.train(number=9, kilobytes=200) == 9
        assert client.predict(x=3)["number"] == 9
    assert server.stop(signal.SIGTERM) == 0
