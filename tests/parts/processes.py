"""Services in processes of their own: started, waited for, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.ports import free_port

START_S = 30.0


class ServiceProcess:
    """A service of functions that is a process; it takes its port as last argument."""

    def __init__(
        self, command: Sequence[str], log: Path, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self._command = [*command, str(self.port)]
        self._log = log
        self._cwd = cwd
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it takes requests."""
        return f"http://127.0.0.1:{self.port}/statefun"

    def start(self) -> None:
        """Start it, and return when it answers."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._cwd,
                env=self._env,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, f"the service has ended: {self._log.read_text()[-2000:]}"
            assert time.monotonic() < deadline_s, (
                f"the service does not answer: {self._log.read_text()[-2000:]}"
            )
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def restart(self) -> None:
        """End it at once and start it again at the same port."""
        self.kill()
        self.start()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1).close()
        except urllib.error.HTTPError:
            return True  # any answer will do
        except OSError:
            return False
        return True
