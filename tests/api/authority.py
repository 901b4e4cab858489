"""Certificates for tests, made by the openssl program."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """A certificate authority below a directory, by the openssl program."""

    def __init__(self, at: Path) -> None:
        self.at = at
        at.mkdir()
        self.certificate = at / "ca.crt"
        self._openssl("req", "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")

    def issue(self, name: str, key_password: str = "") -> tuple[Path, Path]:
        """Certificate and key of `name`, good for 127.0.0.1."""
        secret = ("-passout", f"pass:{key_password}") if key_password else ("-nodes",)
        self._openssl(
            "req", "-x509", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-keyout", f"{name}.key", "-out", f"{name}.crt", nodes=False, more=secret,
        )  # fmt: skip
        return self.at / f"{name}.crt", self.at / f"{name}.key"

    def _openssl(self, *words: str, nodes: bool = True, more: tuple[str, ...] = ()) -> None:
        extra = ("-nodes",) if nodes else more
        command = ["openssl", *words, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2", *extra]
        subprocess.run(command, cwd=self.at, check=True, capture_output=True)
