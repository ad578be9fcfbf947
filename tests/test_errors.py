from __future__ import annotations

import copy
import pickle
import re

import grpc
import pytest

import aipod.errors
from aipod.errors import (
    AipodError,
    BadVersionName,
    Cancelled,
    ConfigError,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    JobNotFound,
    LoadError,
    ModelCrashed,
    ModelError,
    NotInitialized,
    NotSupportedError,
    Overloaded,
    PermissionDenied,
    SerializationError,
    StorageError,
    StorageFull,
    TrainingCancelled,
    TrainingFailed,
    TrainingInProgress,
    Unauthenticated,
    Unavailable,
    VersionNotFound,
    describe,
    rebuild,
)

# One error of each class, with the status that callers in any language see.
ERRORS: list[tuple[AipodError, str]] = [
    (AipodError("something is wrong"), "INTERNAL"),
    (InvalidArgument("x must be positive"), "INVALID_ARGUMENT"),
    (SerializationError('kwargs["a"][3]', "type set is not supported; send a list"), "INVALID_ARGUMENT"),
    (BadVersionName("../v1", "it starts with a dot"), "INVALID_ARGUMENT"),
    (NotSupportedError(), "UNIMPLEMENTED"),
    (VersionNotFound("v1", revision=3), "NOT_FOUND"),
    (JobNotFound("v1@7"), "NOT_FOUND"),
    (NotInitialized("v1"), "FAILED_PRECONDITION"),
    (TrainingInProgress("v1", "v1@7"), "ALREADY_EXISTS"),
    (Conflict("v1", "it is being initialized"), "ABORTED"),
    (Unauthenticated("send a token"), "UNAUTHENTICATED"),
    (PermissionDenied("ask for it"), "PERMISSION_DENIED"),
    (Overloaded("the queue is full; try again"), "RESOURCE_EXHAUSTED"),
    (DeadlineExceeded(), "DEADLINE_EXCEEDED"),
    (Cancelled(), "CANCELLED"),
    (Unavailable("the server drains; try another", may_have_run=True), "UNAVAILABLE"),
    (LoadError("v1", "weights.bin is missing", revision=2), "FAILED_PRECONDITION"),
    (ModelError("1 is not 2", type="mine.Oops", traceback="Traceback …"), "INTERNAL"),
    (ModelCrashed("killed by SIGKILL"), "INTERNAL"),
    (TrainingFailed("v1", "v1@7", "exit code 3"), "INTERNAL"),
    (TrainingCancelled("v1", "v1@7", "by its caller"), "CANCELLED"),
    (StorageError("publishing v1", "the data path is read-only"), "FAILED_PRECONDITION"),
    (StorageFull("publishing v1", missing_bytes=4096), "RESOURCE_EXHAUSTED"),
    (ConfigError(["a is 1; it must be 2", "b is 3; it must be 4"]), "FAILED_PRECONDITION"),
    (InternalError(), "INTERNAL"),
]
each_error = pytest.mark.parametrize(
    "error", [error for error, _ in ERRORS], ids=[type(error).__name__ for error, _ in ERRORS]
)


def test_every_class_is_listed_here_and_exported() -> None:
    classes = {
        value for value in vars(aipod.errors).values() if isinstance(value, type) and value.__module__ == "aipod.errors"
    }
    assert {type(error) for error, _ in ERRORS} == classes
    assert {cls.__name__ for cls in classes} | {"again", "describe", "rebuild"} == set(aipod.errors.__all__)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    lines = re.findall(r"^ {4}(\W*)(\w+)", aipod.errors.__doc__ or "", re.MULTILINE)
    parents = [AipodError]
    drawn: dict[type, type] = {}
    for indent, name in lines:
        cls = getattr(aipod.errors, name)
        depth = len(indent) // 4
        if depth:
            drawn[cls] = parents[depth - 1]
        parents[depth:] = [cls]
    assert drawn == {type(error): type(error).__bases__[0] for error, _ in ERRORS[1:]}


@pytest.mark.parametrize(("error", "status"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
def test_a_class_has_the_status_that_its_callers_rely_on(error: AipodError, status: str) -> None:
    assert error.status == status
    assert status in grpc.StatusCode.__members__


@each_error
def test_an_error_survives_pickling_and_copying(error: AipodError) -> None:
    error = copy.copy(error)
    error.error_id, error.remote_traceback = "e-1", "Traceback …"
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.__dict__ == error.__dict__


@each_error
def test_an_error_survives_the_wire(error: AipodError) -> None:
    twin = rebuild(describe(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    kept = {name: value for name, value in error.__dict__.items() if name != "traceback"}
    assert twin.__dict__ == kept


@each_error
def test_a_message_is_one_line_and_says_something(error: AipodError) -> None:
    assert len(str(error)) > 8
    assert "\n" not in str(error)


def test_the_model_s_traceback_leaves_the_server_only_where_that_is_allowed() -> None:
    error = ModelError("no", traceback="File /srv/model.py")
    error.remote_traceback = "File /srv/model.py"
    assert "/srv" not in repr(describe(error))


def test_what_is_not_plain_stays_behind() -> None:
    error = InvalidArgument("no")
    error.__dict__.update(plain=[1, "a", None], lock=object(), nested=[[2.5], [object()]])
    assert describe(error)["data"] == {"plain": [1, "a", None]}


def test_a_class_of_the_user_s_is_described_as_the_one_it_derives_from() -> None:
    class TooBlurred(InvalidArgument):
        pass

    class VersionNotFound(InvalidArgument):  # the name of another class of the tree
        pass

    for cls in (TooBlurred, VersionNotFound):
        twin = rebuild(describe(cls("sharpen the image")))
        assert type(twin) is InvalidArgument
        assert str(twin) == "sharpen the image"


@pytest.mark.parametrize(
    "description",
    [
        {"kind": "QuotaExceeded", "message": "a newer server says so", "data": {"quota": 1}},
        {"kind": None, "message": "a newer server says so"},
        {"kind": "__class__", "message": "a newer server says so", "data": None},
        {"kind": "Mapping", "message": "a newer server says so", "data": [1]},
        {"message": "a newer server says so"},
    ],
)
def test_a_description_of_an_unknown_kind_is_still_an_error_of_ours(description: dict[str, object]) -> None:
    error = rebuild(description)
    assert type(error) is AipodError
    assert str(error) == "a newer server says so"
    assert (error.error_id, error.remote_traceback) == ("", "")


def test_errors_are_what_the_language_calls_them_too() -> None:
    assert isinstance(DeadlineExceeded(), TimeoutError)
    assert isinstance(ConfigError(["a is 1"]), ValueError)


def test_long_names_are_cut() -> None:
    error = BadVersionName("v" * 100_000, "it is longer than 200 bytes")
    assert len(str(error)) < 200
    assert len(error.name) <= 200


def test_the_missing_room_is_said_where_it_is_known() -> None:
    assert "4096" in str(StorageFull("publishing v1", missing_bytes=4096))
    assert " 0 " not in str(StorageFull("publishing v1"))


def test_a_sentence_names_what_the_caller_asked_for() -> None:
    assert "'v1'" in str(VersionNotFound("v1"))
    assert "3" in str(VersionNotFound("v1", revision=3))
    assert "'v1@7'" in str(TrainingInProgress("v1", "v1@7"))
    assert "x: y" in str(ModelError("y", type="x"))
    assert str(ConfigError(["a", "b"])) == "a; b"
