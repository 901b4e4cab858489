"""A stand-in for the agent. First argument: what it does.

beat: heartbeats; ends 0 on SIGTERM, 75 on SIGUSR2. deaf: heartbeats, ignores SIGTERM. exit CODE: ends at once.
beat-then-exit CODE: ends once the file `go` is in the runtime directory. beat-with-program: and has a program run
in a group of its own, whose pid is in the file `program`.
Each start and SIGHUP is a line in `agent.log`.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hamgr.guard.layout import SharedPage, boottime_ns

runtime_dir = Path(os.environ["HAMGR_RUNTIME_DIR"])


def log(text: str) -> None:
    with (runtime_dir / "agent.log").open("a") as file:
        file.write(f"{text} {os.getpid()}\n")


log("started")
what = sys.argv[1]
if what == "exit":
    sys.exit(int(sys.argv[2]))
page = SharedPage.open(str(runtime_dir))
signal.signal(signal.SIGTERM, signal.SIG_IGN if what == "deaf" else lambda *_: os._exit(0))
signal.signal(signal.SIGUSR2, lambda *_: os._exit(75))
signal.signal(signal.SIGHUP, lambda *_: log("hup"))
if what == "beat-with-program":
    program = subprocess.Popen(["sleep", "1000"], process_group=0)
    (runtime_dir / "program").write_text(str(program.pid))
while True:
    page.agent_heartbeat_ns = boottime_ns()
    if what == "beat-then-exit" and (runtime_dir / "go").exists():
        sys.exit(int(sys.argv[2]))
    time.sleep(0.02)
