"""Pings, set on both sides together: a client that pings more often than its server allows is thrown off in mid-call.

With a call in flight ``grpc.keepalive_timeout_ms`` does nothing; ``grpc.http2.ping_timeout_ms`` is what notices a dead
peer.
"""

from __future__ import annotations

__all__ = ["PING_SECONDS", "SERVER_OPTIONS", "client_options"]

# A dead server is noticed after at most these two together; a live one answers whatever its models do.
PING_SECONDS = 5.0
_PING_TIMEOUT_SECONDS = 5.0
# The server allows more than our clients ask for, so that a client may choose to notice sooner.
_MIN_PING_SECONDS = 0.2


def client_options(ping_seconds: float) -> list[tuple[str, int]]:
    """Channel options for a client that pings this often while a call is in flight."""
    milliseconds = int(ping_seconds * 1000)
    timeout = int(min(ping_seconds, _PING_TIMEOUT_SECONDS) * 1000)
    return [
        ("grpc.keepalive_time_ms", milliseconds),
        ("grpc.keepalive_timeout_ms", timeout),
        ("grpc.http2.ping_timeout_ms", timeout),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 0),
    ]


SERVER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.http2.min_recv_ping_interval_without_data_ms", int(_MIN_PING_SECONDS * 1000)),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # The server looks after its clients too: one that vanished must not hold a call and its memory for ever.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]
