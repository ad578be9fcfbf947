"""A task as data: what it takes, what it refuses, and that it says all of it at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from aipod.errors import ConfigError
from aipod.stream.broker.address import Connect
from aipod.stream.message import Message
from aipod.stream.tasks import DeadSpec, ModelSpec, SinkSpec, Source, StreamTask
from aipod.stream.tasks.checks import problems_together
from aipod.stream.windows import WindowSpec

HERE = __name__


def table(**fields: Any) -> dict[str, Any]:
    """The smallest task, with some fields otherwise; None leaves one out."""
    least: dict[str, Any] = {
        "name": "vibration",
        "subject": "sensors.>",
        "window": "count:32",
        "model": "localhost:50051",
        "sink": "stdout",
    }
    return {**least, **fields}


def task(**fields: Any) -> StreamTask:
    return StreamTask.from_dict(table(**fields))


def problems(**fields: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        task(**fields)
    return [problem.removeprefix("task 'vibration': ") for problem in raised.value.problems]


def sink(result: object) -> None:
    """A sink of the user's."""


def prepare(window: object) -> dict[str, Any]:
    return {}


class TestTable:
    def test_the_smallest_task_has_the_defaults_that_are_documented(self) -> None:
        made = task()
        assert made == StreamTask(
            name="vibration",
            source=Source(connect=Connect(), subjects=("sensors.>",), durable="aipod-vibration"),
            window=WindowSpec.parse("count:32"),
            model=ModelSpec("localhost:50051", "default", 60.0, 4),
            sinks=(SinkSpec("stdout"),),
        )
        assert (made.source.start, made.source.ack_wait, made.source.max_ack_pending) == ("all", 10.0, 20_000)
        assert made.dead_letters == DeadSpec("dead.{task}")
        assert made.dead_subject == "dead.vibration"
        assert made.lease and made.partitions == 1 and made.pressure == "close"

    def test_every_field_is_taken(self) -> None:
        made = task(
            nats={"servers": ["nats://a:4222", "nats://b"], "user": "u", "password": "p", "domain": "hub"},
            subject=None,
            subjects=["a.*", "b"],
            stream="S",
            durable="d",
            start="time:2026-01-31T12:00:00Z",
            ack_wait="30s",
            max_ack_pending=500,
            max_bytes="64MiB",
            on_deleted="fail",
            decode="msgpack",
            key="header:Device",
            time="ts",
            time_unit="ms",
            window="tumbling:60s",
            lateness="2s",
            max_messages=200,
            columns={"x": "a.b"},
            model="localhost:50051/v7",
            timeout="1m",
            concurrency=9,
            sink=None,
            sinks=["nats:results.{key}", {"to": "sql:sqlite:///x.db#t", "create": True}],
            dead_letters={"subject": "graves.{task}", "max_ratio": 0.1, "create": False},
            pressure="pause",
            lease=False,
            lease_ttl="2s",
            partitions=3,
        )
        assert made.source == Source(
            connect=Connect(("nats://a:4222", "nats://b"), user="u", password="p", domain="hub"),
            subjects=("a.*", "b"),
            durable="d",
            stream="S",
            start="time:2026-01-31T12:00:00Z",
            ack_wait=30.0,
            max_ack_pending=500,
            max_bytes=64 << 20,
            on_deleted="fail",
        )
        assert made.window == WindowSpec.parse("tumbling:60s", lateness=2.0, max_messages=200, own_time=True)
        assert made.model == ModelSpec("localhost:50051", "v7", 60.0, 9)
        assert [str(each) for each in made.sinks] == ["nats:results.{key}", "sql:sqlite:///x.db#t"]
        assert made.sinks[1].options["create"] is True
        assert made.dead_subject == "graves.vibration"
        assert (made.lease, made.lease_ttl, made.partitions, made.columns) == (False, 2.0, 3, {"x": "a.b"})

    def test_a_window_can_be_a_table(self) -> None:
        made = task(window={"kind": "sliding", "size": 32, "step": 8, "max_wait": "5s"})
        assert made.window == WindowSpec.parse("sliding:32:8", max_wait=5.0)

    def test_a_model_can_be_a_table(self) -> None:
        assert task(model={"address": "h:1", "version": "v"}, timeout=3).model == ModelSpec("h:1", "v", 3.0)

    def test_whose_time_counts_is_said_by_the_task_alone(self) -> None:
        assert not task().window.own_time
        assert task(time="header:At").window.own_time
        assert not dataclasses.replace(task(time="ts"), time="stored").window.own_time

    def test_tasks_that_say_the_same_are_equal_and_others_are_not(self) -> None:
        assert task(ack_wait="10s") == task(ack_wait=10)
        assert task() != task(concurrency=5)

    def test_unknown_fields_are_named_with_the_nearest(self) -> None:
        assert problems(windw="count:3", nats={"usr": "x"}, dead_letters={"ratio": 1}) == [
            "there is no field 'windw'; the nearest is window",
            "nats: there is no field 'usr'; the nearest is user",
            "dead_letters: there is no field 'ratio'; the nearest is max_ratio",
        ]

    def test_what_is_missing_is_named(self) -> None:
        with pytest.raises(ConfigError) as raised:
            StreamTask.from_dict({}, "tasks.toml")
        assert [problem.split(";")[0] for problem in raised.value.problems] == [
            "tasks.toml: subjects is missing",
            "tasks.toml: window: it is missing",
            "tasks.toml: model: address is missing",
            "tasks.toml: name is missing",
            "tasks.toml: sinks is missing",
        ]

    def test_a_field_under_both_its_names_is_refused(self) -> None:
        assert problems(subjects=["x"])[0] == "subjects and subject are the same field; keep one"

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"name": "a b"}, "name is 'a b'"),
            ({"name": "a.b"}, "name is 'a.b'"),
            ({"name": 5}, "name is 5"),
            ({"name": "é"}, "name is 'é'"),
            ({"subject": ["a b"]}, "subjects: 'a b' is no subject: it has a space"),
            ({"subject": ["a.>.b"]}, "'>' can only be the last token"),
            ({"subject": []}, "subjects is []"),
            ({"subject": [5]}, "subjects: 5 is no subject"),
            ({"subject": ["a.*", "a.b"]}, "subjects: 'a.*' and 'a.b' overlap"),
            ({"stream": "a.b"}, "stream is 'a.b'"),
            ({"durable": "a b"}, "durable is 'a b'"),
            ({"start": "yesterday"}, "start is 'yesterday'; it must be all, new, seq:NUMBER or time:"),
            ({"start": "time:2026-01-31T12:00:00"}, "start is"),
            ({"start": "seq:0"}, "start is 'seq:0'"),
            ({"ack_wait": "10 parsecs"}, "ack_wait is '10 parsecs'; it must be seconds"),
            ({"ack_wait": True}, "ack_wait is True"),
            ({"ack_wait": 0.5}, "ack_wait is 0.5; it must be"),
            ({"ack_wait": float("nan")}, "ack_wait is nan"),
            ({"max_ack_pending": 0}, "max_ack_pending is 0"),
            ({"max_bytes": "many"}, "max_bytes is 'many'"),
            ({"on_deleted": "cry"}, "on_deleted is 'cry'; it must be one of recreate, fail"),
            ({"nats": {"password": 5}}, "nats: password is not what it must be"),
            (
                {"nats": {"creds": "/no/such.creds"}},
                "nats: creds is not what it must be; it must be the path of a file",
            ),
            ({"nats": "nats://[::1"}, "nats: servers[0]: it is no URL"),
            ({"nats": "nats://u:p[@h:1"}, "nats: servers[0]: it is no URL"),
            ({"nats": ["h", "[zz]"]}, "nats: servers[1]: it is no URL"),
            ({"nats": "http://x"}, "nats: servers[0]: it begins with none of"),
            ({"nats": 5}, "nats: servers is not what it must be"),
            ({"decode": "jsn"}, "decode: there is no format 'jsn'; the nearest is json"),
            ({"decode": 5}, "decode is 5"),
            ({"key": "subject:x"}, "key: 'x' is no place of a token"),
            ({"time": "no_such_module:f"}, "time: there is no module 'no_such_module'"),
            ({"time_unit": "min"}, "time_unit is 'min'"),
            ({"window": 5}, "window: it is 5"),
            ({"window": "counting:5"}, "window: "),
            ({"window": {"kind": "count", "sise": 5}}, "window: there is no field 'sise'"),
            ({"lateness": "-1s"}, "lateness is '-1s'"),
            ({"late": "keep"}, "late is 'keep'"),
            ({"prepare": "nowhere:f"}, "prepare: there is no module 'nowhere'"),
            ({"prepare": f"{HERE}:prepare", "columns": {"a": "b"}}, "prepare and columns exclude each other"),
            ({"columns": ["a"]}, "columns is ['a']"),
            ({"columns": {"a": ""}}, "columns: a: '' is no field"),
            ({"columns": {"window": "a"}}, "columns: predict gets the window itself"),
            ({"model": "localhost"}, "model: 'localhost' is no address of a model"),
            ({"model": "localhost:50051/"}, "ends before the version"),
            ({"model": "h:1/v", "version": "w"}, "model: the version is given twice"),
            ({"model": {"address": "h"}}, "model: address is 'h'; it must be the address of a model server"),
            ({"model": 5}, "model: address is 5"),
            ({"concurrency": 0}, "model: concurrency is 0"),
            ({"timeout": 0}, "model: timeout is 0"),
            ({"dead_letters": "dead.*"}, "dead_letters: subject: 'dead.*' is no subject to publish to: wildcards"),
            ({"dead_letters": "dead.{key}"}, "dead_letters: subject: 'dead.{key}' has the variable {key}"),
            ({"dead_letters": {"max_ratio": 0}}, "dead_letters: max_ratio is 0"),
            ({"dead_letters": {"over": 5}}, "dead_letters: min_count is 100; it must be at most over, and that is 5"),
            ({"dead_letters": 5}, "dead_letters: subject is 5"),
            ({"pressure": "more"}, "pressure is 'more'"),
            ({"lease": "perhaps"}, "lease is 'perhaps'"),
            ({"lease_ttl": 0}, "lease_ttl is 0"),
            ({"partitions": 0, "key": "k"}, "partitions is 0"),
            ({"partitions": 2}, "partitions is 2, and without a key there is nothing to part by"),
            ({"decode": "raw", "key": "device"}, "key: raw has no fields"),
            ({"decode": "npy", "time": "field:ts"}, "time: npy has no fields"),
            ({"decode": "npy", "columns": {"x": "a"}}, "columns: x: npy has no fields"),
        ],
    )
    def test_a_mistake_is_said_once_with_its_place(self, fields: dict[str, Any], problem: str) -> None:
        [found] = problems(**fields)
        assert problem in found

    @pytest.mark.parametrize("name", ["creds", "nkey_seed", "tls_key", "password", "token"])
    def test_a_secret_where_its_file_belongs_is_in_no_error(self, name: str) -> None:
        for secret in ("SU" + "A" * 56, "-----BEGIN NATS USER JWT-----\nhunter2\n", "hunter2"):
            for value in (secret, [secret], {"x": secret}):
                try:
                    made = task(nats={name: value})
                except ConfigError as error:
                    assert secret not in str(error) and repr(secret) not in str(error)
                else:
                    assert secret not in repr(made)

    def test_all_mistakes_are_said_at_once(self) -> None:
        found = problems(key="subject:x", ack_wait=-1, sinks=["nats:a b", "stdout", "tape"], sink=None, window=None)
        assert len(found) == 5
        assert [each.split(":")[0].split(" is ")[0] for each in found] == [
            *("ack_wait", "window", "sinks[0]", "sinks[2]", "key"),
        ]


class TestBounds:
    """A consumer hands out max_ack_pending messages and then waits: FACTS of JetStream, not of ours."""

    @pytest.mark.parametrize(
        ("window", "more", "fits"),
        [
            ("count:90", {}, True),
            ("count:91", {}, False),
            ("sliding:91:1", {}, False),
            ("tumbling:60s", {"max_messages": 90}, True),
            ("tumbling:60s", {"max_messages": 91}, False),
            ("session:60s", {}, False),
        ],
    )
    def test_a_window_that_could_never_fill_is_refused(self, window: str, more: dict[str, Any], fits: bool) -> None:
        if fits:
            assert task(window=window, max_ack_pending=100, **more).window.kind == window.partition(":")[0]
        else:
            [found] = problems(window=window, max_ack_pending=100, **more)
            assert "since max_ack_pending is 100; make the window smaller, or max_ack_pending at least" in found
            assert task(window=window, max_ack_pending=int(found.rpartition(" ")[2]), **more)


class TestLoops:
    @pytest.mark.parametrize("to", ["nats:sensors.mean", "nats:{key}.x", "nats-fenced:sensors.{task}.{key}"])
    def test_a_task_that_would_read_its_own_results_is_refused(self, to: str) -> None:
        [found] = problems(sink=to)
        assert "it would feed itself" in found

    def test_a_sink_inside_a_sink_counts_too(self) -> None:
        [found] = problems(sink={"to": "model:h:1/v", "sink": "nats:sensors.second"})
        assert "it would feed itself" in found

    def test_a_task_that_would_read_its_own_dead_letters_is_refused(self) -> None:
        [found] = problems(subject="dead.>")
        assert "dead_letters: they go to 'dead.vibration', which the task reads with 'dead.>'" in found

    def test_dead_letters_among_the_results_are_refused(self) -> None:
        [found] = problems(sink="nats:{task}.vibration", dead_letters="vibration.{task}")
        assert "where results go, too" in found

    def test_results_beside_the_source_are_fine(self) -> None:
        assert task(subject="sensors.raw.>", sink="nats:sensors.mean.{key}", key="device")


class TestSinks:
    @pytest.mark.parametrize(
        ("text", "kind", "target", "options"),
        [
            ("nats:results.{key}", "nats", "results.{key}", {"fenced": False, "create": False, "stream": None}),
            ("nats-fenced:results", "nats", "results", {"fenced": True, "create": False, "stream": None}),
            ("sql:sqlite:///x.db", "sql", "sqlite:///x.db", {"table": "aipod_results", "create": None}),
            ("sql:postgresql://h/d#t", "sql", "postgresql://h/d", {"table": "t", "create": None}),
            ("file:out/a", "file", "out/a", {"max_bytes": 64 << 20, "max_age": 86400.0}),
            ("stdout", "stdout", "", {}),
            ("model:h:1/v", "model", "h:1/v", {"timeout": 60.0, "sink": None}),
            (f"{HERE}:sink", "function", f"{HERE}:sink", {}),
        ],
    )
    def test_a_sink_is_a_text(self, text: str, kind: str, target: str, options: dict[str, Any]) -> None:
        spec = SinkSpec.parse(text)
        assert (spec.kind, spec.target, spec.options) == (kind, target, options)

    def test_a_sink_with_options_is_a_table(self) -> None:
        spec = SinkSpec.parse({"to": "model:h:1/v", "timeout": "5s", "sink": {"to": "file:x"}})
        assert spec.options["timeout"] == 5.0
        assert [each.kind for each in spec.all()] == ["model", "file"]

    @pytest.mark.parametrize(
        ("sink", "problem"),
        [
            ("tape", "'tape' is no sink; write"),
            ("", "'' is no sink"),
            ([5], "a sink is a text or a table, not int"),
            ({}, 'says in "to" where it goes'),
            ({"to": "stdout", "x": 1}, "there is no option 'x'; this sink has none"),
            ({"to": "nats:a", "fence": True}, "there is no option 'fence'; the nearest is fenced"),
            ({"to": "nats:a", "fenced": 5}, "fenced is 5; it must be true or false"),
            ({"to": "model:h:1", "sink": "tape"}, "sink: 'tape' is no sink"),
            ("nats:a.*", "wildcards have no place here"),
            ("nats:a b", "a space"),
            ("sql:x", "that is no URL of a database; write sqlite:///results.db"),
            ("sql:nodialect://host/x#t", "that is no URL of a database"),
            ("sql:sqlite://#t", "a database in memory records nothing"),
            ("sql:sqlite:///x.db#drop table", "table is 'drop table'"),
            ("sql:file:/no/such#t", "cannot be read (No such file or directory)"),
            ("file:", "followed by the directory"),
            ("model:h", "is no address of a model"),
            ("nowhere:f", "there is no module 'nowhere'"),
        ],
    )
    def test_what_is_no_sink_is_refused(self, sink: Any, problem: str) -> None:
        [found] = problems(sink=sink)
        assert found.startswith("sinks: ")
        assert problem in found

    def test_a_task_with_keys_publishes_to_a_subject_for_each(self) -> None:
        [found] = problems(key="device", sink="nats:results")
        assert "has no {key}, and the task has keys" in found

    @pytest.mark.parametrize("sink", [[], 5])
    def test_no_sinks_at_all_are_refused(self, sink: Any) -> None:
        assert problems(sink=sink) == [f"sinks is {sink}; it must be a sink, or a list of them"]


class TestSecrets:
    def test_a_secret_comes_out_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "password").write_text("s3cret\n")
        (tmp_path / "url").write_text("postgresql://u:s3cret@h/d\n")
        made = task(
            nats={"user": "u", "password": f"file:{tmp_path}/password"}, sink=f"sql:file:{tmp_path}/url#results"
        )
        assert made.source.connect.password == "s3cret"
        assert made.sinks[0].target == "postgresql://u:s3cret@h/d"

    @pytest.mark.parametrize("content", [None, "", "  \n", b"\xff\xfe", "two\nlines"])
    def test_a_file_without_one_is_refused(self, content: str | bytes | None, tmp_path: Path) -> None:
        file = tmp_path / "token"
        if content is not None:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        [found] = problems(nats={"token": f"file:{file}"})
        assert found.startswith("nats: token")

    def test_no_secret_is_shown(self) -> None:
        made = task(
            nats={"servers": "nats://u:s3cret@h", "token": "s3cret"},
            sink=["sql:postgresql://u:s3cret@h/d#t", {"to": "model:h:1", "sink": "sql:postgresql://u:s3cret@h/d"}],
        )
        assert "s3cret" not in repr(made) + "".join(map(str, made.sinks))
        for fields in (
            {"nats": {"servers": ["nats://u:s3cret@h:0"]}},
            {"nats": {"servers": [5, "s3cret"]}},
            {"nats": {"token": ["s3cret"]}},
            {"nats": {"user": "u", "password": "s3\x00cret"}},
            {"nats": {"password": "s3cret", "token": "s3cret"}},
            {"sink": "postgresql://u:s3cret@h/d"},
            {"sink": "sql:postgresql://u:s3cret@h/d#a b"},
        ):
            found = "; ".join(problems(**fields))
            assert "s3cret" not in found
            assert "s3\\x00cret" not in found


class TestTogether:
    def test_two_of_a_name_are_refused(self) -> None:
        assert (
            problems_together([task(), task(subject="b"), task()])
            == ["task 'vibration': there are two of that name; each needs its own"] * 2
        )

    def test_two_with_one_durable_are_refused(self) -> None:
        [found] = problems_together([task(durable="d"), task(name="b", durable="d")])
        assert found == "tasks 'vibration' and 'b' have the same durable 'd'; they would share its messages out"
        assert not problems_together([task(durable="d", stream="A"), task(name="b", durable="d", stream="B")])
        # Partitions have consumers with a number behind the name.
        [found] = problems_together([task(key="k", partitions=2, durable="d"), task(name="b", durable="d-1")])
        assert "have the same durable 'd-1'" in found

    def test_two_with_one_subject_for_results_are_refused(self) -> None:
        one, other = task(key="k", sink="nats:results.{key}"), task(name="b", sink="nats:results.all")
        [found] = problems_together([one, other])
        assert "both publish to 'results.*'" in found
        elsewhere = task(name="b", sink="nats:results.all", nats="nats://other")
        assert not problems_together([one, elsewhere])

    def test_tasks_with_subjects_of_their_own_are_fine(self) -> None:
        each: dict[str, Any] = {"key": "k", "sink": "nats:results.{task}.{key}"}
        assert not problems_together([task(**each), task(name="b", **each)])


def test_parts_made_in_python_are_checked_alike() -> None:
    with pytest.raises(ConfigError, match=r"subjects: 'a b' is no subject.*; ack_wait is 0"):
        Source(connect=Connect(), subjects=("a b",), durable="d", ack_wait=0)
    with pytest.raises(ConfigError, match="source is None; it must be a Source"):
        StreamTask("x", None, WindowSpec.parse("count:1"), ModelSpec("h:1"), ())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="partitions is 2"):
        dataclasses.replace(task(), partitions=2)


def test_a_task_builds_its_own_reading() -> None:
    message = Message(1, 5.0, "sensors.a", b'{"device": 7, "ts": 1500}')
    task(key="device", time="ts", time_unit="ms").reading().read(message)
    assert (message.value, message.key, message.time) == ({"device": 7, "ts": 1500}, "7", 1.5)
