"""An instance of the model in a process of its own.

::

    this process                                        the child
    ────────────                                        ─────────
    ChildInstance.start(order)    ── starts ─────────▶ __main__, then host: reads and runs
    .load() .call() .batch()  ── frames, arrays in ───▶ hosted: the instance
                              ◀─ shared memory ───────
    .end()                    ── asks, then kills ────▶ disposes of the instance, and leaves

Each of the two learns at once when the other one is gone, and a child never outlives this process.
"""

from __future__ import annotations

from aipod.engine.child.instance import ChildInstance
from aipod.engine.child.orders import MakeOrder
from aipod.engine.child.origin import Origin

__all__ = ["ChildInstance", "MakeOrder", "Origin"]
