"""Certificates, made anew for each run of the tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["Authority"]

# Not the machine's own settings, which differ; strict clients ask for all of these extensions.
_SETTINGS = """
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[member]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
authorityKeyIdentifier = keyid
subjectKeyIdentifier = hash
subjectAltName = {alternative}
"""


class Authority:
    """Signs certificates; ``certificate`` is the file to trust."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._name = name
        self._settings(name)
        self.certificate = str(directory / f"{name}.pem")
        self._run("req", "-x509", *self._key(name), "-out", self.certificate, "-extensions", "authority")

    def sign(self, name: str, alternative: str = "IP:127.0.0.1") -> tuple[str, str]:
        """Make a certificate for an address, and its key; both as files, in this order."""
        self._settings(name, alternative)
        file = str(self._directory / f"{name}.pem")
        self._run("req", "-new", *self._key(name), "-out", f"{file}.request")
        config = ("-extfile", str(self._directory / f"{name}.cnf"), "-extensions", "member")
        authority = ("-CA", self.certificate, "-CAkey", str(self._directory / f"{self._name}.key"), "-CAcreateserial")
        self._run("x509", "-req", "-in", f"{file}.request", *authority, *config, "-days", "2", "-out", file)
        return file, str(self._directory / f"{name}.key")

    def _key(self, name: str) -> tuple[str, ...]:
        key = str(self._directory / f"{name}.key")
        self._run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        return ("-key", key, "-config", str(self._directory / f"{name}.cnf"))

    def _settings(self, name: str, alternative: str = "DNS:nobody") -> None:
        (self._directory / f"{name}.cnf").write_text(_SETTINGS.format(name=name, alternative=alternative))

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
