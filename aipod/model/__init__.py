"""The user's contract (:class:`AIModelBase`) and its data on disk (:mod:`aipod.model.store`)."""

from aipod.errors import NotSupportedError
from aipod.model.base import AIModelBase
from aipod.model.call import CallView, current_call

__all__ = ["AIModelBase", "CallView", "NotSupportedError", "current_call"]
