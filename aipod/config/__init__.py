"""The settings: what can be set, where a value comes from, and what is wrong with a bad one.

This package is the only reader of ``AIPOD_*``. A setting is one field of :class:`Settings`, where its default, its
range and its meaning stand together; its variable is ``AIPOD_`` and the field's name in capitals. What wins, from the
strongest: an explicit argument or flag, the environment, an attribute of the model class (for the few settings that a
class may choose), the default.

Every value, wherever it comes from, passes through the same :class:`~aipod.config.kinds.Kind`, so that
``listen_port="50051"`` and ``AIPOD_LISTEN_PORT=50051`` mean the same, and all problems are reported together, in one
:class:`~aipod.errors.ConfigError`.
"""

from __future__ import annotations

from aipod.config.environment import inherited
from aipod.config.settings import Flagged, Origin, Row, Settings, check_address, variable

__all__ = ["Flagged", "Origin", "Row", "Settings", "check_address", "inherited", "variable"]
