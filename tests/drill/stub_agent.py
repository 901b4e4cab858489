"""A stand-in for `hamgr agent FILE` with one member: keeps one server running and answers as its leader.

It lets the drill's own machinery be tried without the product. Starts the server again whenever it died.
"""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import yaml

settings: dict[str, Any] = yaml.safe_load(Path(sys.argv[1]).read_text())
postgresql = settings["postgresql"]
data_dir = Path(postgresql["data_dir"])
programs = Path(postgresql["bin_dir"])
address, _, port = postgresql["listen"].partition(":")


def initialise() -> None:
    secret = data_dir.with_name("secret")
    secret.write_text(postgresql["authentication"]["superuser"]["password"])
    subprocess.run(
        [programs / "initdb", "-D", data_dir, "-U", "postgres", "-N", "-A", "scram-sha-256", f"--pwfile={secret}"],
        check=True,
    )
    (data_dir / "pg_hba.conf").write_text("\n".join(postgresql["pg_hba"]) + "\n")


def serve_postgres() -> None:
    while True:
        (data_dir / "postmaster.pid").unlink(missing_ok=True)
        parameters = {"listen_addresses": address, "port": port, **postgresql["parameters"]}
        options = [word for name, value in parameters.items() for word in ("-c", f"{name}={value}")]
        subprocess.run([programs / "postgres", "-D", data_dir, *options], check=False)


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        body: Any = {"role": "primary", "state": "running", "timeline": 1}
        self.wfile.write(json.dumps([] if self.path == "/failovers" else body).encode())

    def log_message(self, *_: object) -> None:
        return


if not data_dir.exists():
    initialise()
threading.Thread(target=serve_postgres, daemon=True).start()
host, _, rest_port = settings["restapi"]["listen"].partition(":")
http.server.ThreadingHTTPServer((host, int(rest_port)), Answers).serve_forever()
