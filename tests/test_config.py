from __future__ import annotations

import dataclasses
import logging
import os
import pickle
from pathlib import Path

import pytest

from aipod.config import Flagged, Row, Settings, check_address, variable
from aipod.errors import ConfigError

YES: tuple[object, ...] = ("true", "1", "YES", "on", True)
NAMES = [row.name for row in Settings().describe()]

# For each setting: texts that mean something, values that mean the same, and what neither a text nor a value may be.
GOOD: dict[str, list[tuple[object, object]]] = {
    "listen_host": [
        ("0.0.0.0", "0.0.0.0"),
        (" localhost\n", "localhost"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("[fe80::1%eth0]", "[fe80::1%eth0]"),
    ],
    "listen_port": [("0", 0), ("65535", 65535), (8080, 8080)],
    "front": [("auto", "auto"), ("CQ", "cq"), ("aio", "aio")],
    "data_path": [("/data", Path("/data")), (Path("x"), Path("x")), ("模型", Path("模型"))],
    "strict_versions": [(word, word in YES) for word in (*YES, "False", "0", "no", "off", False)],
    "keep_revisions": [("1", 1)],
    "model_pool_size": [("0", 0), ("7", 7)],
    "model_pool_bytes": [("0", 0), ("1024", 1024), ("512MiB", 512 << 20), ("2 GiB", 2 << 30), (9, 9)],
    "model_idle_ttl": [("0", 0.0), ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), (3, 3.0)],
    "preload": [("", ()), ("  ", ()), ("a", ("a",)), (" a , b,a", ("a", "b")), (["a", "b"], ("a", "b")), ((), ())],
    "pin": [("v1,v2", ("v1", "v2"))],
    "swap": [("load_first", "load_first"), ("EVICT_FIRST", "evict_first")],
    "load_pause": [("0", 0.0), ("60", 60.0)],
    "rpc_max_workers": [("1", 1), ("1024", 1024)],
    "max_concurrency": [("0", 0), ("1", 1)],
    "isolation": [("process", "process"), ("THREAD", "thread")],
    "replicas": [("1", 1), (256, 256)],
    "devices": [("", ()), ("cuda:0,cuda:1", ("cuda:0", "cuda:1"))],
    "max_batch_size": [("1", 1), ("65536", 65536)],
    "batch_timeout": [("0", 0.0), ("0.005", 0.005)],
    "latency_target": [("0", 0.0), ("0.05", 0.05)],
    "max_queue": [("1", 1)],
    "max_queue_bytes": [("1MiB", 1 << 20)],
    "max_message_bytes": [("2147483647", (2 << 30) - 1), ("1024GiB", 1 << 40)],
    "max_kwargs_bytes": [("1KiB", 1024)],
    "max_result_bytes": [("1KiB", 1024)],
    "shared_memory_bytes": [("0", 0), ("1GiB", 1 << 30)],
    "default_timeout": [("0", 0.0), ("0.25", 0.25)],
    "train_isolation": [("thread", "thread"), ("Process", "process")],
    "train_max_jobs": [("3", 3), (1024, 1024)],
    "train_max_queued": [("0", 0), (5, 5)],
    "train_exclusive": [("yes", True), (False, False)],
    "train_nice": [("0", 0), (19, 19)],
    "train_timeout": [("0", 0.0), (3600, 3600.0)],
    "train_grace": [("2.5", 2.5), (0, 0.0)],
    "watch_seconds": [("0", 0.0), (0.5, 0.5)],
    "drain_seconds": [("0", 0.0), ("10", 10.0)],
    "send_tracebacks": [("always", "always"), ("Never", "never")],
    "log_level": [("debug", "DEBUG"), ("WARNING", "WARNING")],
    "address": [
        ("model.example:1", "model.example:1"),
        ("[::1]:50051", "[::1]:50051"),
        ("unix:/run/aipod", "unix:/run/aipod"),
    ],
}
NO_NUMBER = ["", " ", "abc", "1_0", "٣", "0x10", "1,5", "--1", "1 2", "NaN", True, None, b"1", [1], "9" * 5000]
NO_INTEGER = [*NO_NUMBER, "1.0", "1e3", 1.0]
NO_SECONDS = [*NO_NUMBER, "-1", "-0.5", "nan", "inf", "1e999", float("nan"), float("inf"), 10**400, "31536001", "5s"]
NO_SIZE = [*NO_INTEGER, "-1", -1, "1MB", "1mib", "1.5GiB", "MiB", "1 MiB x", "+1"]
NO_NAMES = ["a,,b", ",", "a,", ["a", ""], ["a", 1], 0, False, {"a": 1}, "a\0b", "a\nb"]
NO_CHOICE = ["", "sometimes", 0, True, None, ["auto"]]
BAD: dict[str, list[object]] = {
    "listen_host": ["", " ", "a:1", "a b", "a/b", "host\0", "[::1", "[::1]:1", "[localhost]", "[]", "::x", 1, None],
    "listen_port": [*NO_INTEGER, "-1", "65536", "99999", -1, 65536, "tcp", "50051/tcp"],
    "front": NO_CHOICE,
    "data_path": ["", "  ", "a\0b", "a\nb", 1, None, b"x", Path("a\0b")],
    "strict_versions": ["", "maybe", "2", "t", 1, 0, None, "truefalse"],
    "keep_revisions": [*NO_INTEGER, "0", "-3", 0],
    "model_pool_size": [*NO_INTEGER, "-1", -1],
    "model_pool_bytes": NO_SIZE,
    "model_idle_ttl": NO_SECONDS,
    "preload": NO_NAMES,
    "pin": NO_NAMES,
    "swap": NO_CHOICE,
    "load_pause": [*NO_SECONDS, "61"],
    "rpc_max_workers": [*NO_INTEGER, "0", "-3", "1000000000", 1025],
    "max_concurrency": [*NO_INTEGER, "-1"],
    "isolation": NO_CHOICE,
    "replicas": [*NO_INTEGER, "0", "257"],
    "devices": NO_NAMES,
    "max_batch_size": [*NO_INTEGER, "0", "65537"],
    "batch_timeout": [*NO_SECONDS, "3601"],
    "latency_target": [*NO_SECONDS, "3601"],
    "max_queue": [*NO_INTEGER, "0"],
    "max_queue_bytes": [*NO_SIZE, "0", "1023KiB"],
    "max_message_bytes": [*NO_SIZE, "0", "1023", "1025GiB"],
    "max_kwargs_bytes": [*NO_SIZE, "0", "101MiB"],
    "max_result_bytes": [*NO_SIZE, "0", "2GiB"],
    "shared_memory_bytes": [*NO_SIZE, "2000GiB"],
    "default_timeout": NO_SECONDS,
    "train_isolation": NO_CHOICE,
    "train_max_jobs": [*NO_INTEGER, "0", "1025"],
    "train_max_queued": [*NO_INTEGER, "-1"],
    "train_exclusive": ["", "maybe", "2", 1, 0, None],
    "train_nice": [*NO_INTEGER, "-1", "20"],
    "train_timeout": NO_SECONDS,
    "train_grace": NO_SECONDS,
    "watch_seconds": NO_SECONDS,
    "drain_seconds": NO_SECONDS,
    "send_tracebacks": NO_CHOICE,
    "log_level": [*NO_CHOICE, "TRACE", 10],
    "address": ["", "host", "host:", ":1", "host:0", "host:99999", "host:a", "::1:50051", "a:b:1", "[x]:1", 1, None],
}


def test_every_setting_has_its_good_and_its_bad_values_here() -> None:
    assert list(GOOD) == NAMES
    assert list(BAD) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_good_value_is_taken_from_wherever_it_comes(name: str) -> None:
    for value, wanted in GOOD[name]:
        settings = Settings.load({}, **{name: value})
        assert getattr(settings, name) == wanted
        assert type(getattr(settings, name)) is type(wanted) or isinstance(wanted, Path)
        assert settings == Settings(**{name: value})  # type: ignore[arg-type]
        if isinstance(value, str):
            assert Settings.load({variable(name): value}) == settings


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_value_is_named_with_its_setting_and_with_what_would_be_right(name: str) -> None:
    allowed = next(row.allowed for row in Settings().describe() if row.name == name)
    for value in BAD[name]:
        with pytest.raises(ConfigError) as failure:
            Settings(**{name: value})  # type: ignore[arg-type]
        [problem] = failure.value.problems
        assert problem.startswith(f"{name} is ")
        assert allowed in problem or "it must be at most max_message_bytes" in problem
        assert len(problem) < 300
        if isinstance(value, str):
            with pytest.raises(ConfigError, match=rf"^AIPOD_{name.upper()} is "):
                Settings.load({variable(name): value})
        if value is not None:
            with pytest.raises(ConfigError, match=f"^{name} is "):
                Settings.load({}, **{name: value})


def test_all_problems_come_in_one_error() -> None:
    environ = {"AIPOD_LISTEN_PORT": "99999", "AIPOD_DRAIN_SECONDS": "soon"}
    with pytest.raises(ConfigError) as failure:
        Settings.load(environ, rpc_max_workers=0, workers=3)
    assert failure.value.problems == [
        "there is no setting 'workers'; the nearest is rpc_max_workers",
        "AIPOD_LISTEN_PORT is '99999'; it must be a whole number from 0 to 65535",
        "rpc_max_workers is 0; it must be a whole number from 1 to 1024",
        "AIPOD_DRAIN_SECONDS is 'soon'; it must be a number of seconds from 0 to 31536000",
    ]


def test_the_stronger_source_wins_and_is_named() -> None:
    class Model:
        max_concurrency = 2
        rpc_max_workers = 3

    environ = {"AIPOD_MAX_CONCURRENCY": "4"}
    for settings, value, origin in [
        (Settings.load({}), 0, "default"),
        (Settings.load({}, Model), 2, "class"),
        (Settings.load(environ, Model), 4, "environment"),
        (Settings.load(environ, Model, max_concurrency=6), 6, "explicit"),
        (Settings.load(environ, Model, max_concurrency=None), 4, "environment"),
        (Settings(max_concurrency=8), 8, "explicit"),
    ]:
        assert (settings.max_concurrency, settings.origin("max_concurrency")) == (value, origin)
        assert settings.origin("data_path") == "default"


def test_a_class_chooses_only_what_is_a_class_to_choose() -> None:
    class Model:
        rpc_max_workers = 3

    assert Settings.load({}, Model).rpc_max_workers == Settings().rpc_max_workers


def test_a_default_that_a_class_inherits_is_no_choice() -> None:
    class Base:
        max_concurrency = 0

    class Model(Base):
        pass

    assert Settings.load({}, Model).origin("max_concurrency") == "default"


def test_a_bad_attribute_of_the_class_is_said_to_be_the_class_s() -> None:
    class Model:
        max_concurrency = "many"

    with pytest.raises(ConfigError, match=r"^max_concurrency of the model class is 'many'; it must be "):
        Settings.load({}, Model)


def test_kwargs_may_not_be_larger_than_the_message_that_carries_them() -> None:
    with pytest.raises(ConfigError) as failure:
        Settings.load({"AIPOD_MAX_MESSAGE_BYTES": "64KiB"})
    [problem] = failure.value.problems
    assert problem == "max_kwargs_bytes is 1048576; it must be at most AIPOD_MAX_MESSAGE_BYTES, and that is 65536"


def test_a_long_value_is_cut_in_the_sentence() -> None:
    with pytest.raises(ConfigError) as failure:
        Settings.load({"AIPOD_LISTEN_PORT": "x" * 100_000})
    assert len(str(failure.value)) < 200


def test_an_unknown_variable_is_warned_about_with_the_nearest_name(caplog: pytest.LogCaptureFixture) -> None:
    assert Settings.load({"AIPOD_LISTN_PORT": "1", "AIPODS": "x", "PATH": "y"}) == Settings()
    [record] = caplog.records
    assert (record.name, record.levelno) == ("aipod.config", logging.WARNING)
    assert "AIPOD_LISTN_PORT" in record.getMessage()
    assert "nearest is AIPOD_LISTEN_PORT" in record.getMessage()


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        ("PORT", "listen_port"),
        ("WORKERS", "rpc_max_workers"),
        ("MAX_QUEU", "max_queue"),
        ("DRAIN", "drain_seconds"),
        ("XYZ", None),
        ("NOPE", None),
        ("X", None),
    ],
)
def test_a_name_that_is_like_no_other_is_not_said_to_be(
    written: str, nearest: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    lists = "; the README lists those that there are"
    Settings.load({f"AIPOD_{written}": "1"})
    [record] = caplog.records
    assert record.getMessage().endswith(f"; the nearest is AIPOD_{nearest.upper()}" if nearest else lists)
    for name in (written, written.lower()):
        with pytest.raises(ConfigError) as failure:
            Settings.load({}, **{name: "1"})
        assert str(failure.value).endswith(f"; the nearest is {nearest}" if nearest else lists)


def test_a_value_of_a_flag_is_said_to_be_the_flag_s() -> None:
    environ = {"AIPOD_LISTEN_PORT": "1", "AIPOD_DRAIN_SECONDS": "soon", "AIPOD_MAX_KWARGS_BYTES": "2MiB"}
    with pytest.raises(ConfigError) as failure:
        Settings.load(environ, listen_port=Flagged("--port", "no"))
    assert failure.value.problems == [
        "--port is 'no'; it must be a whole number from 0 to 65535",
        "AIPOD_DRAIN_SECONDS is 'soon'; it must be a number of seconds from 0 to 31536000",
    ]
    del environ["AIPOD_DRAIN_SECONDS"]
    with pytest.raises(ConfigError, match=r"^AIPOD_MAX_KWARGS_BYTES is 2097152; it must be at most --limit, and "):
        Settings.load(environ, max_message_bytes=Flagged("--limit", "1MiB"))
    settings = Settings.load(environ, listen_port=Flagged("--port", "7"), pin=["a"])
    assert (settings.listen_port, settings.origin("listen_port")) == (7, "explicit")
    names = ("listen_port", "pin", "max_kwargs_bytes", "preload")
    assert [settings.label(name) for name in names] == ["--port", "pin", "AIPOD_MAX_KWARGS_BYTES", "preload"]


@pytest.mark.parametrize(
    "injected",
    [
        # a Service called "aipod"
        {
            "AIPOD_SERVICE_HOST": "10.0.0.1",
            "AIPOD_SERVICE_PORT": "50051",
            "AIPOD_SERVICE_PORT_GRPC": "50051",
            "AIPOD_PORT": "tcp://10.0.0.1:50051",
            "AIPOD_PORT_50051_TCP": "tcp://10.0.0.1:50051",
            "AIPOD_PORT_50051_TCP_PROTO": "tcp",
            "AIPOD_PORT_50051_TCP_PORT": "50051",
            "AIPOD_PORT_50051_TCP_ADDR": "10.0.0.1",
        },
        # a Service called "aipod-listen"
        {
            "AIPOD_LISTEN_SERVICE_HOST": "10.0.0.1",
            "AIPOD_LISTEN_SERVICE_PORT": "80",
            "AIPOD_LISTEN_PORT": "tcp://10.0.0.1:80",
            "AIPOD_LISTEN_PORT_80_UDP_ADDR": "10.0.0.1",
        },
    ],
)
def test_what_kubernetes_injects_is_passed_over_with_one_warning(
    injected: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.load({**injected, "AIPOD_MAX_QUEUE": "9"})
    assert settings == Settings(max_queue=9)
    [record] = caplog.records
    assert all(name in record.getMessage() for name in injected)


def test_no_setting_has_a_name_that_kubernetes_may_inject(caplog: pytest.LogCaptureFixture) -> None:
    Settings.load({row.variable: row.value for row in Settings().describe()})
    assert not caplog.records


def test_load_reads_the_environment_of_the_process_only_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPOD_LISTEN_PORT", "1")
    assert Settings.load().listen_port == 1
    assert Settings.load({}).listen_port == Settings().listen_port == 50051


def test_loading_changes_nothing_outside() -> None:
    environ = {"AIPOD_LISTEN_PORT": "1", "AIPOD_X": "y"}
    before = dict(os.environ)
    Settings.load(environ)
    assert environ == {"AIPOD_LISTEN_PORT": "1", "AIPOD_X": "y"}
    assert dict(os.environ) == before
    assert not Path("appdata").exists()


def test_the_description_lists_every_setting_in_words() -> None:
    rows = Settings.load({"AIPOD_MAX_QUEUE_BYTES": "3MiB"}).describe()
    assert [row.name for row in rows] == [field.name for field in dataclasses.fields(Settings) if field.name[0] != "_"]
    assert all(row.meaning and row.allowed and not row.meaning.endswith(".") for row in rows)
    [row] = [row for row in rows if row.name == "max_queue_bytes"]
    assert row == Row(
        name="max_queue_bytes",
        variable="AIPOD_MAX_QUEUE_BYTES",
        value="3MiB",
        origin="environment",
        meaning=row.meaning,
        default="512MiB",
        allowed="a whole number of bytes of at least 1MiB, with KiB, MiB or GiB behind it or without",
    )


def test_the_texts_of_a_description_read_back_as_the_same_settings() -> None:
    settings = Settings.load(
        {}, pin="a,b", strict_versions="on", max_queue_bytes=(1 << 20) + 1, model_idle_ttl=0.1, listen_host="::1"
    )
    assert Settings.load({row.variable: row.value for row in settings.describe()}) == settings
    assert Settings.load({row.variable: row.default for row in settings.describe()}) == Settings()


def test_settings_are_frozen_and_survive_pickling_with_their_origins() -> None:
    settings = Settings.load({"AIPOD_LISTEN_PORT": "7"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.listen_port = 8  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(settings))
    assert copy == settings
    assert copy.origin("listen_port") == "environment"


def test_an_address_is_checked_as_the_setting_is() -> None:
    assert check_address("[::1]:1") == "[::1]:1"
    with pytest.raises(ValueError, match="address is 'host'; it must be host:port"):
        check_address("host")
