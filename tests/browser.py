"""Chromium without a window, driven through the pipe of its DevTools protocol."""

import json
import os
import shutil
import subprocess
import time
from itertools import count

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One tab. ``timeout`` is the longest wait for an answer in seconds."""

    def __init__(self, profile, timeout=120, *options):
        self.timeout, self.numbers, self.buffer = timeout, count(1), b""
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()
        words = [
            PROGRAM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        words += [
            "--autoplay-policy=no-user-gesture-required",
            "--mute-audio",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]
        words += [*options, "about:blank"]
        script = f'exec "$@" 3<&{commands} 4>&{answers}'  # the file numbers that Chromium expects
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *words],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        os.set_blocking(self.answers, False)
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self.session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        os.close(self.commands)
        os.close(self.answers)

    def call(self, method, **parameters):
        """The result of one command of the protocol; events are dropped."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters, **getattr(self, "session", {})}
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self.timeout
        while time.monotonic() < end:
            found, separator, rest = self.buffer.partition(b"\0")
            if not separator:
                self.buffer += self._read()
                continue
            self.buffer = rest
            answer = json.loads(found)
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
        raise TimeoutError(f"{method}: no answer from {PROGRAM}")

    def _read(self):
        import select

        ready, _, _ = select.select([self.answers], [], [], 1)
        return os.read(self.answers, 1 << 20) if ready else b""

    def run(self, script):
        """The value of JavaScript; of a promise, what it resolves to."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, address):
        """Loads a page; returns when its scripts have run."""
        self.run("window.earlierPage = true")
        self.call("Page.navigate", url=address)
        self.wait("!window.earlierPage && document.readyState === 'complete'")

    def wait(self, condition):
        """Waits until JavaScript is true."""
        end = time.monotonic() + self.timeout
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            self.run("new Promise(done => setTimeout(done, 20))")

    def press(self, key, code=None, shift=False):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, modifiers=8 * shift)

    def click(self, selector):
        """A click of the mouse on the middle of an element, scrolled into view."""
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        box = self.run(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        self.click_at(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def click_at(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
