"""The frames of docs/wire.md, byte by byte: what any protobuf library makes of them, and what we do."""

from __future__ import annotations

from typing import Any

from raw_trunk import RawTrunk
from test_docs import each_vector, vectors

from aipod.codec import encode_call, encode_reply
from aipod.rpc.trunk import chunks
from aipod.rpc.v1 import model_pb2, trunk_pb2

NAMES = {**vars(model_pb2), **vars(trunk_pb2), "encode_call": encode_call, "encode_reply": encode_reply}


@each_vector("trunk")
def test_a_frame_is_the_bytes_that_the_page_says(head: str, data: bytes) -> None:
    frame: Any = eval(head, dict(NAMES))
    assert frame.SerializeToString() == data
    assert type(frame).FromString(data) == frame
    if frame.HasField("chunk"):
        leaving = chunks.Leaving(frame.chunk.number, frame.chunk.data)
        assert leaving.frame() == data
        number, content = chunks.read(data) or (None, b"")
        assert (number, bytes(content)) == (frame.chunk.number, frame.chunk.data)
    else:
        assert chunks.read(data) is None


def test_a_server_understands_the_conversation(server_of: Any, model: Any) -> None:
    frames = [data for head, data in vectors("trunk") if head.startswith("ClientFrame")]
    with RawTrunk(server_of(model).address) as trunk:
        for frame in frames:
            trunk.send(frame)
        trunk.half_close()
        assert trunk.end() == ("OK", "")
        assert trunk.greeting is not None
        assert sorted(trunk.replies) == [1, 2, 3]
        assert trunk.replies[2].status == "OK"
        # 70,000 zeros are no CallRequest.
        assert trunk.replies[3].status == "INVALID_ARGUMENT"
