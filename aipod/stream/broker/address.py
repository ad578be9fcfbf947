"""Where a broker is, and who we are to it."""

from __future__ import annotations

import importlib.util
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nats.aio.client import RawCredentials

from aipod.errors import ConfigError

__all__ = ["Connect"]

_SCHEMES = ("nats", "tls", "ws", "wss")
_SEED = r"S[A-Z2-7]{57}"
_CREDS = rf"(?s).*-BEGIN NATS USER JWT-+\n[\w.-]+\n.*-BEGIN USER NKEY SEED-+\n{_SEED}\n.*"


@dataclass(frozen=True)
class Connect:
    """Validated; its repr shows no secret.

    Attributes:
        servers: URLs, or ``host:port``; all of one cluster.
        creds: The file with a JWT and its seed.
        nkey_seed: The file with an nkey's seed.
        tls_ca: The file with the authorities to trust instead of the system's.
        tls_cert: The file with our certificate; ``tls_key`` is the file with its key.
        domain: The JetStream domain; None for the broker's own.
        name: What the broker's monitoring calls us.

    Raises:
        ConfigError: With all that is wrong.
    """

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    user: str = ""
    password: str = ""
    token: str = ""
    creds: str = ""
    nkey_seed: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    domain: str | None = None
    name: str = "aipod"

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def __repr__(self) -> str:
        proofs = ("user", "token", "creds", "nkey_seed", "tls_cert")
        shown = [self.where, *(f"with {name}" for name in proofs if getattr(self, name))]
        return f"Connect({', '.join(shown)})"

    @property
    def where(self) -> str:
        """The servers, without what a URL may say about us."""
        return ", ".join(url.rpartition("@")[2].rpartition("//")[2] for url in self.servers)

    @property
    def tls(self) -> bool:
        """Whether nothing is to be said in the clear."""
        return bool(self.tls_ca or self.tls_cert) or any(url.startswith(("tls:", "wss:")) for url in self.servers)

    @property
    def prefix(self) -> str:
        """What subjects of the JetStream API begin with."""
        return f"$JS.{self.domain}.API" if self.domain else "$JS.API"

    def options(self) -> dict[str, Any]:
        """Read the files, and say it in the client's words.

        Raises:
            ConfigError: A file that cannot be read, or makes no sense; or a package is missing.
        """
        options: dict[str, Any] = {"servers": list(self.servers), "name": self.name}
        given = {"user": self.user, "password": self.password, "token": self.token}
        options.update({name: value for name, value in given.items() if value})
        if self.creds or self.nkey_seed:
            _need("nkeys", "creds and nkey_seed")
        if any(url.startswith("ws") for url in self.servers):
            _need("aiohttp", "ws and wss")
        # Not as files to the client, which breaks off for good over one that is being written when it looks again.
        if self.creds:
            options["user_credentials"] = RawCredentials(_text("creds", self.creds, _CREDS, "a JWT and its seed"))
        if self.nkey_seed:
            options["nkeys_seed_str"] = _text("nkey_seed", self.nkey_seed, rf"\s*{_SEED}\s*", "the seed of an nkey")
        if self.tls:
            options["tls"] = self._tls()
        return options

    def _tls(self) -> ssl.SSLContext:
        for name in ("tls_ca", "tls_cert", "tls_key"):
            if path := getattr(self, name):
                _readable(name, path)
        try:
            context = ssl.create_default_context(cafile=self.tls_ca or None)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or "not PEM"
            raise ConfigError([f"tls_ca, tls_cert and tls_key: they cannot be used: {reason}"]) from error
        return context

    def _problems(self) -> Iterator[str]:
        if not self.servers:
            yield "servers: name at least one, such as nats://127.0.0.1:4222"
        for number, url in enumerate(self.servers):
            if problem := _wrong_with(url):
                yield f"servers[{number}]: {problem}"
        if bool(self.user) != bool(self.password):
            yield "user and password: one is there without the other"
        proofs = [name for name in ("user", "token", "creds", "nkey_seed") if getattr(self, name)]
        if len(proofs) > 1:
            yield f"{' and '.join(proofs)}: choose one way to say who you are"
        if bool(self.tls_cert) != bool(self.tls_key):
            yield "tls_cert and tls_key: one is there without the other"
        if self.domain is not None and (not self.domain or any(sign in self.domain for sign in ".*> \t\r\n")):
            yield f"domain: {self.domain!r} is not one token of a subject"


def _wrong_with(url: str) -> str:
    # Not a word of the URL itself: it may hold a password.
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
    except ValueError:
        return "it is no URL; write nats://host:port, and of a password's [ ] / ? # @ and % the codes, such as %5B"
    try:
        port = parts.port
    except ValueError:
        return "the port is not one from 1 to 65535"
    if parts.scheme not in _SCHEMES:
        return f"it begins with none of {', '.join(scheme + '://' for scheme in _SCHEMES)}"
    if not parts.hostname or any(sign.isspace() for sign in url):
        return "it names no host; write nats://host:port"
    return "the port is not one from 1 to 65535" if port == 0 else ""


def _readable(name: str, path: str) -> None:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name is none"
        raise ConfigError([f"{name}: the file cannot be read: {reason}"]) from error


def _text(name: str, path: str, form: str, what: str) -> str:
    _readable(name, path)
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    if not re.fullmatch(form, text):
        raise ConfigError([f"{name}: the file does not have {what}"])
    return text


def _need(package: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError([f"{what} need a package that is not here: pip install nats-py[{package}]"])
