"""What the pages under docs/ say is true: their code runs, their bytes are the codec's, their tables are the code's."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aipod.errors
from aipod.codec import decode_reply, encode_call, encode_reply, read_call
from aipod.codec.dtypes import resolve
from aipod.config import Settings
from aipod.errors import AipodError, SerializationError, Unavailable, VersionNotFound
from aipod.model import AIModelBase
from aipod.rpc.admin_client import Admin, AsyncAdmin
from aipod.rpc.ai_pb2 import Input, Output
from aipod.rpc.arguments import DEFAULT_RETRY
from aipod.rpc.calls import Attempts
from aipod.rpc.client import AIClient, AsyncAIClient
from aipod.rpc.server import Server
from aipod.rpc.status import status_of_error

ROOT = Path(__file__).parent.parent
PAGES = sorted(ROOT.glob("docs/*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
WIRE = (ROOT / "docs/wire.md").read_text("utf-8")
CLIENT = (ROOT / "docs/client.md").read_text("utf-8")
# The address that the pages write; in a test it is a free one.
WRITTEN = "localhost:50051"
NAMES = {"np": np, "datetime": datetime, "timedelta": timedelta, "timezone": timezone, "Input": Input, "Output": Output}

# The page about streams is followed step by step in test_docs_streams.py.
each_code = pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem != "streams"], ids=lambda page: page.stem
)
each_text = pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)


class Example(AIModelBase):
    """What a page calls that does not bring a model of its own."""

    def predict(self, **kwargs: Any) -> Any:
        return kwargs


def vectors(kind: str) -> list[tuple[str, bytes]]:
    """Read one list of test vectors: what stands above the bytes, and the bytes."""
    match = re.search(rf"<!-- {kind} vectors -->\n\n```text\n(.*?)```", WIRE, re.DOTALL)
    assert match is not None, kind
    entries = (entry.partition("\n") for entry in match[1].strip().split("\n\n"))
    return [(head, _bytes(lines)) for head, _, lines in entries]


def _bytes(text: str) -> bytes:
    words = (word.partition("×") for word in text.split() if word != "(nothing)")
    return b"".join(bytes.fromhex(byte) * int(count or 1) for byte, _, count in words)


def each_vector(kind: str) -> pytest.MarkDecorator:
    found = vectors(kind)
    return pytest.mark.parametrize(("head", "data"), found, ids=[head for head, _ in found])


@each_code
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs"}
    address = ""
    with ExitStack() as stack:
        for served, code in steps(page.read_text("utf-8")):
            if served:
                model = Example if served == "example" else names[served]
                server = Server(model, port=0, listen_host="127.0.0.1", data_path="appdata", model_pool_size=0)
                address = stack.enter_context(server).address
                for _ in range(3 if model is Example else 0):
                    server.engine.initialize("v1")
            assert address or WRITTEN not in code, "code that calls a server needs <!-- served: … --> before it"
            exec(compile(code.replace(WRITTEN, address), page.name, "exec"), names)


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Yield what a page serves and the Python that it shows, in its order; one of the two is empty."""
    for match in re.finditer(r"<!-- served: (\w+) -->|^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield match[1] or "", match[2] or ""


@each_text
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Name the headings of a page as they are linked to."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@each_text
def test_every_variable_that_is_named_is_a_setting(page: Path) -> None:
    known = {row.variable for row in Settings().describe()}
    assert set(re.findall(r"\bAIPOD_[A-Z_]*[A-Z]\b", page.read_text("utf-8"))) <= known


@each_vector("call")
def test_a_call_is_written_and_read_as_the_vectors_say(head: str, data: bytes) -> None:
    version, kwargs = eval(head, NAMES)
    assert encode_call(version, kwargs) == data
    message = read_call(data)
    assert message.version == version
    assert_same(message.kwargs(), kwargs)


@each_vector("reply")
def test_a_reply_is_written_and_read_as_the_vectors_say(head: str, data: bytes) -> None:
    value = eval(head, NAMES)
    assert encode_reply(value) == data
    assert_same(decode_reply(data), value)


@each_vector("reader")
def test_what_other_writers_may_send_is_read_as_the_vectors_say(head: str, data: bytes) -> None:
    assert_same(decode_reply(data), eval(head, NAMES))


@each_vector("refused")
def test_what_has_to_be_refused_is(head: str, data: bytes) -> None:
    with pytest.raises(SerializationError):
        decode_reply(data)


@each_vector("legacy")
def test_the_messages_of_1_0_are_what_the_vectors_say(head: str, data: bytes) -> None:
    assert eval(head, NAMES).SerializeToString() == data


def assert_same(actual: object, expected: object) -> None:
    """Compare with types, dtypes and the bits of every element."""
    assert type(actual) is type(expected)
    if isinstance(expected, dict) and isinstance(actual, dict):
        assert list(actual) == list(expected)
        assert_same(list(actual.values()), list(expected.values()))
    elif isinstance(expected, list) and isinstance(actual, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray) and isinstance(actual, np.ndarray):
        assert (actual.dtype, actual.shape, actual.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
    else:
        assert actual == expected


def test_every_dtype_in_the_table_is_one() -> None:
    table = WIRE.partition("### Dtypes")[2].partition("### Segments")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    names = [name.replace("\\|", "|") for cell in cells for name in re.findall(r"`([^`\[]+(?:\[\w+\])?)`", cell)]
    assert len(names) > 20
    for name in names:
        # A long double is another on every platform, and ml_dtypes is not installed everywhere.
        if ":" in name or name[0] not in "|<>":
            continue
        assert resolve(name).str.strip("=|<>") == name.strip("|<>")


def test_the_error_of_the_wire_is_the_bytes_that_it_says() -> None:
    error = VersionNotFound("v1")
    error.error_id = "0badc0de"
    match = re.search(r"<!-- error vector -->\n\n```text\n(.*?)```", WIRE, re.DOTALL)
    assert match is not None
    assert status_of_error(error)[2] == [("aipod-error-bin", _bytes(match[1]))]


@pytest.mark.parametrize("page", ["client", "wire"])
def test_the_table_of_errors_is_the_tree(page: str) -> None:
    rows = errors_of((ROOT / f"docs/{page}.md").read_text("utf-8"))
    classes = [value for value in vars(aipod.errors).values() if is_error(value)]
    assert {name: status for name, status, _ in rows} == {cls.__name__: cls.status for cls in classes}


def test_the_table_of_errors_names_what_each_one_knows() -> None:
    described = {name: set(re.findall(r"`(\w+)`", last)) for name, _, last in errors_of(WIRE)}
    assert described == {name: set(aipod.errors.describe(sample(name))["data"]) for name in described}


def errors_of(text: str) -> list[tuple[str, str, str]]:
    table = text.partition("<!-- errors -->")[2].lstrip().partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return [(name.strip("`"), status, last) for name, status, last in rows]


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, AipodError)


def sample(name: str) -> AipodError:
    """Make an error of that class, from values of the types that it takes."""
    values = {"str": "x", "int": 1, "bool": True, "Sequence[str]": ["x"], "int | None": 1}
    cls = getattr(aipod.errors, name)
    parameters = list(inspect.signature(cls).parameters.values())
    error: AipodError = cls(*(values[parameter.annotation] for parameter in parameters))
    return error


def test_the_table_of_admin_has_every_method() -> None:
    text = CLIENT.partition("## Administration")[2]
    cells = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    written = {name for cell in cells for name in re.findall(r"(\w+)\(", cell)}
    for admin in (Admin, AsyncAdmin):
        assert written == {name for name in vars(admin) if not name.startswith("_")}


@pytest.mark.parametrize("client", [AIClient, AsyncAIClient])
def test_the_arguments_of_a_client_are_those_that_are_shown(client: type) -> None:
    shown = re.search(r"^`AIClient\((address.*)\)`$", CLIENT, re.MULTILINE)
    assert shown is not None
    defaults = {name: eval(value) for name, value in re.findall(r"(\w+)=([^,]+)", shown[1])}
    parameters = inspect.signature(client).parameters
    # datapath is 1.0's, and means nothing.
    optional = {name for name in parameters if parameters[name].default is not inspect.Parameter.empty} - {"datapath"}
    assert defaults == {name: parameters[name].default for name in optional}


def test_the_pauses_between_tries_are_those_that_are_told() -> None:
    told = re.search(r"Up to (\d) more tries follow after pauses of ([\d., and]+) seconds", " ".join(CLIENT.split()))
    assert told is not None
    attempts = Attempts("predict", None, DEFAULT_RETRY)
    pauses = [attempts.pause(Unavailable("gone")) for _ in range(int(told[1]))]
    assert pauses == [float(number) for number in re.findall(r"\d\.\d", told[2])]
    with pytest.raises(Unavailable, match="gone"):
        attempts.pause(Unavailable("gone"))
