"""A headless Chromium driven over its DevTools pipe: no port, no driver, no other package."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_ANSWER_SECONDS = 60.0
# Taller pictures than a texture can hold come back wrong.
_STRIP_PIXELS = 4_000
# Chromium reads commands from descriptor 3 and answers on 4: a child moves them there.
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.set_inheritable(3, True); os.set_inheritable(4, True); os.execvp(sys.argv[3], sys.argv[3:])"
)


def find_chromium() -> str | None:
    """Returns the path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Visit:
    """What happened while a page loaded.

    Attributes:
        requests: Every address that was asked for, the page's own included.
        console: Console messages, errors and security violations.
    """

    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)


class Chromium:
    """One browser with one tab.

    Args:
        executable: Path of the browser.
        profile: Empty folder for its profile and log.
    """

    def __init__(self, executable: str, profile: Path) -> None:
        """Starts the browser and opens the tab."""
        self._log_path = profile / "chromium.log"
        commands_out, commands_in = os.pipe()
        answers_out, answers_in = os.pipe()
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (commands_out, answers_in)]
        arguments = [
            executable,
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
            f"--user-data-dir={profile / 'profile'}",
        ]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *map(str, theirs), *arguments],
                pass_fds=theirs,
                stdout=log,
                stderr=log,
            )
        for fd in (commands_out, answers_in, *theirs):
            os.close(fd)
        self._commands, self._answers = commands_in, answers_out
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        """Ends the browser."""
        os.close(self._commands)
        os.close(self._answers)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait(timeout=10)

    def visit(self, page: Path, *, width: int, height: int = 900, dark: bool = False) -> Visit:
        """Loads a file in a window of the given size, and waits until it is drawn."""
        self._events.clear()
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=page.resolve().as_uri())
        self._wait_for("Page.loadEventFired")
        # Two frames later everything that loading caused has been reported.
        self.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
        )
        visit = Visit()
        for event in self._events:
            method, told = event["method"], event.get("params", {})
            if method == "Network.requestWillBeSent":
                visit.requests.append(told["request"]["url"])
            elif method == "Runtime.consoleAPICalled":
                visit.console.append(json.dumps(told["args"]))
            elif method == "Runtime.exceptionThrown":
                visit.console.append(json.dumps(told["exceptionDetails"]))
            elif method == "Log.entryAdded":
                visit.console.append(told["entry"]["text"])
        return visit

    def evaluate(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression in the page."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def screenshot(self) -> np.ndarray[Any, Any]:
        """Returns the pixels of the whole page: uint8 [height, width, 3]."""
        width, height = self.evaluate(
            "[document.documentElement.clientWidth, document.documentElement.scrollHeight]"
        )
        strips = []
        for top in range(0, height, _STRIP_PIXELS):
            clip = {"x": 0, "y": top, "width": width, "height": min(_STRIP_PIXELS, height - top)}
            answer = self._call(
                "Page.captureScreenshot",
                format="png",
                captureBeyondViewport=True,
                clip={**clip, "scale": 1},
            )
            data = base64.b64decode(answer["data"])
            strips.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        return np.concatenate(strips)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            answer = self._read(deadline, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self._events.append(answer)

    def _wait_for(self, event: str) -> None:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not any(e.get("method") == event for e in self._events):
            self._events.append(self._read(deadline, event))

    def _read(self, deadline: float, waiting_for: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            data = os.read(self._answers, 1 << 20) if ready else b""
            if not data:
                log = self._log_path.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"Chromium did not answer to {waiting_for}; its log:\n{log}")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))
