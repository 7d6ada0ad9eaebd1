"""Headless Chromium through its DevTools protocol: what a page logs, asks for and shows."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
         "--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0", "about:blank")  # fmt: skip
PATIENCE_S = 60
LOGS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


def program() -> str | None:
    """Return a Chromium's path, None without one."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """One page of one browser; `with Browser() as page`."""

    def __enter__(self) -> Browser:
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [str(program()), f"--user-data-dir={self.folder.name}", *FLAGS]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.messages: list[dict[str, Any]] = []
        self.number = 0
        self.socket = self.open_socket()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()

    def open_socket(self) -> ClientConnection:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("DevTools listening on "):
                self.session = ""
                return connect(line.split()[-1], max_size=None)
        raise RuntimeError("chromium ended before it listened")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its answer; events that come in between are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = json.loads(self.socket.recv(timeout=PATIENCE_S))
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.messages.append(answer)

    def open(self, path: Path, width: int, *, height: int = 900, dark: bool = False) -> None:
        """Load a file at a window size and wait until it is complete."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.messages.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.until("document.readyState === 'complete' && document.URL.startsWith('file:')")

    def visit(self, address: str, width: int, *, height: int = 900) -> None:
        """Load a server's page at a window size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.messages.clear()
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && document.URL.startsWith('http:')")

    def key(self, code: str, *, down: bool) -> None:
        """Press or release a key by its code, as KeyW."""
        self.call("Input.dispatchKeyEvent", type="keyDown" if down else "keyUp", code=code, key=code)

    def js(self, expression: str) -> Any:
        """Return the value of an expression, a promise's result too."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.js(condition):
            assert time.monotonic() < deadline, f"the page never came to {condition}"

    def logged(self) -> list[dict[str, Any]]:
        """Return what the page wrote to the console, warnings and faults of the browser among it."""
        self.js("0")
        return [message["params"] for message in self.messages if message.get("method") in LOGS]

    def asked(self) -> list[str]:
        """Return the addresses that the page asked for, itself and data: apart."""
        sent = [message for message in self.messages if message.get("method") == "Network.requestWillBeSent"]
        addresses = [message["params"]["request"]["url"] for message in sent]
        return [address for address in addresses if not address.startswith(("data:", "file:"))]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
