"""ZipPackage, as code of 1.0 uses it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from aipod.errors import InvalidArgument
from aipod.package import ZipPackage


def made(**files: bytes) -> bytes:
    package = ZipPackage(mode="w")
    for name, data in files.items():
        package.write_file(name, data=data)
    return package.close()


def test_what_was_written_is_read_back() -> None:
    package = ZipPackage(data=made(a=b"1", b=b"22"), mode="r")
    assert (package.read_file("a"), package.read_file("b")) == (b"1", b"22")


def test_data_is_read_and_no_data_is_written_where_no_mode_is_given() -> None:
    assert ZipPackage(data=made(a=b"1")).read_file("a") == b"1"
    package = ZipPackage()
    package.write_file("a", data=b"2")
    assert ZipPackage(data=package.close()).read_file("a") == b"2"


def test_a_file_on_disk_is_read_written_and_compressed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 10_000)
    package = ZipPackage(mode="w")
    package.write_file("deep/x", path=str(source))
    content = package.close(save_to=str(tmp_path / "package.zip"))
    assert (tmp_path / "package.zip").read_bytes() == content
    assert len(content) < 1000
    assert ZipPackage(path=str(tmp_path / "package.zip"), mode="r").read_file("deep/x") == b"x" * 10_000


def test_files_are_added_to_what_is_given_and_the_source_stays(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    original = made(a=b"1")
    path.write_bytes(original)
    with ZipPackage(path=path, mode="a") as package:
        package.write_file("b", data="文")
        content = package.close()
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["a", "b"]
    assert path.read_bytes() == original


@pytest.mark.parametrize("data", [b"no zip", made(a=b"1" * 100)[:-30]], ids=["none", "cut off"])
def test_bytes_that_are_no_zip_file_are_the_callers_fault(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="no zip file"):
        ZipPackage(data=data)


def test_mistakes_get_a_sentence() -> None:
    package = ZipPackage(data=made(a=b"1"))
    with pytest.raises(InvalidArgument, match="no file 'b'"):
        package.read_file("b")
    with pytest.raises(InvalidArgument, match="mode='a'"):
        package.write_file("c", data=b"")
    with pytest.raises(InvalidArgument, match="path or data"):
        ZipPackage().write_file("c")
    with pytest.raises(InvalidArgument, match="no mode 'q'"):
        ZipPackage(mode="q")
    package.close()
    with pytest.raises(InvalidArgument, match="closed"):
        package.close()
