"""Who is who to a broker: nkeys and JWTs, made anew for each run of the tests."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import nkeys  # type: ignore[import-untyped]

__all__ = ["Key", "Operator"]


class Key:
    """An nkey: ``public`` names it, ``seed`` is secret."""

    def __init__(self, kind: int = nkeys.PREFIX_BYTE_USER) -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), kind).decode()
        self._pair = nkeys.from_seed(self.seed.encode())
        self.public = self._pair.public_key.decode().rstrip("=")

    def jwt(self, subject: str, kind: str, **claims: Any) -> str:
        """Say something of somebody, signed."""
        body = {"jti": "x", "iat": 1, "iss": self.public, "sub": subject, "name": kind}
        body["nats"] = {"type": kind, "version": 2, **claims}
        signed = ".".join(_web(json.dumps(part)) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
        return f"{signed}.{_web(self._pair.sign(signed.encode()))}"


class Operator:
    """Somebody whom a server trusts, with one account that may do everything."""

    def __init__(self) -> None:
        self._key = Key(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = Key(nkeys.PREFIX_BYTE_ACCOUNT)
        self._system = Key(nkeys.PREFIX_BYTE_ACCOUNT)

    def settings(self) -> dict[str, Any]:
        """What the server is to know."""
        everything = dict.fromkeys(("subs", "conn", "leaf", "data", "payload", "imports", "exports"), -1)
        streams = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        limits = {**everything, **streams, "wildcards": True}
        accounts = {
            self._account.public: self._key.jwt(self._account.public, "account", limits=limits),
            self._system.public: self._key.jwt(self._system.public, "account", limits=everything),
        }
        return {
            "operator": self._key.jwt(self._key.public, "operator"),
            "system_account": self._system.public,
            "resolver": "MEMORY",
            "resolver_preload": accounts,
        }

    def creds(self) -> str:
        """Make a user of the account: its JWT and seed, as in a file of that name."""
        user = Key()
        jwt = self._account.jwt(user.public, "user", subs=-1, data=-1, payload=-1)
        return "".join(
            f"-----BEGIN {name}-----\n{text}\n------END {name}------\n"
            for name, text in (("NATS USER JWT", jwt), ("USER NKEY SEED", user.seed))
        )


def _web(data: str | bytes) -> str:
    raw = data if isinstance(data, bytes) else data.encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
