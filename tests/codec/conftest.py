"""How many cases each of the codec's properties is tried with.

300 by default; 20,000 by ``make chaos``; for the 100,000 that a new codec has to stand once, about an hour:
``python -m pytest tests/codec/test_codec_properties.py --codec-cases=100000``.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--codec-cases", type=int, default=300, help="cases per property of the codec (default: 300)")


def pytest_configure(config: pytest.Config) -> None:
    # The option is unknown, and so its default holds, where pytest was not started on this directory.
    cases = config.getoption("--codec-cases", default=300)
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings.register_profile("codec", max_examples=cases, deadline=None, database=None, suppress_health_check=slow)
