"""Windows: messages that are predicted together. Pure: messages and time go in, closed windows come out."""

from aipod.stream.windows.spec import WindowSpec
from aipod.stream.windows.window import Ahead, Closed, Done, Late, Outcome, Window
from aipod.stream.windows.windower import Windower

__all__ = ["Ahead", "Closed", "Done", "Late", "Outcome", "Window", "WindowSpec", "Windower"]
