"""Programs that need a terminal, run in tmux: keys are typed when a text shows, and the last screen is read.

Used by the command. One thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmark.host import FailedError

from tooling.program import Attempt

_POLL_S = 0.2
_WAIT_S = 60.0  # for a text to show


@dataclass
class Terminal:
    """A tmux server of its own, with one window."""

    attempt: Attempt
    name: str

    def _tmux(self, *words: str) -> str:
        attempt = self.attempt
        return attempt.host.run(
            "tmux", "-L", self.name, *words, env=attempt.environment, cwd=attempt.work, limit=20
        ).output

    def screen(self) -> str:
        """What it shows now."""
        return self._tmux("capture-pane", "-p")

    def run(self, command: str, keys: tuple[tuple[str, str], ...]) -> str:
        """Run a command and type; the screen before the last key."""
        # The shell stays open behind the program, for the screen to be read after one that has ended.
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "40", "bash", "--norc")
        try:
            self._tmux("send-keys", command, "Enter")
            screen = ""
            for text, key in keys:
                screen = self._wait(text)
                self._tmux("send-keys", key)
            return screen
        finally:
            self._tmux("kill-server")

    def _wait(self, text: str) -> str:
        deadline = time.monotonic() + _WAIT_S
        while text not in (screen := self.screen()):
            if time.monotonic() > deadline:
                raise FailedError(
                    f"{text!r} did not show within {_WAIT_S:.0f} s; the screen: {screen.strip()[-600:]!r}"
                )
            time.sleep(_POLL_S)
        return screen
