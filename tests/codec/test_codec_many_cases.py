"""The codec's properties, tried on 20,000 cases each: 100,000 in all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_PROPERTIES = Path(__file__).with_name("test_codec_properties.py")
_CASES = 20_000
# About a quarter of an hour where nothing else runs.
_TIMEOUT = 2 * 3600


@pytest.mark.chaos
def test_every_property_of_the_codec_holds_for_many_cases() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--codec-cases={_CASES}"]
    run = subprocess.run([*command, str(_PROPERTIES)], capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
