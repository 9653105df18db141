"""A small RTSP server for tests: one client, RTP over the RTSP connection, packets from the program ffmpeg."""

import socket
import subprocess
import threading
from contextlib import suppress

ENCODER = "-c:v libx264 -preset ultrafast -tune zerolatency -g 5 -pix_fmt yuv420p -f rtp"


class RtspServer:
    """Serves an input of ffmpeg in real time at ``rtsp://127.0.0.1:<port>/live`` until ``kill``."""

    def __init__(self, port, source):
        self.packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.packets.bind(("127.0.0.1", 0))
        words = f"ffmpeg -v error -re {source} {ENCODER} rtp://127.0.0.1:{self.packets.getsockname()[1]}".split()
        self.ffmpeg = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        lines = []  # ffmpeg prints the description of the session
        while not any(line.startswith("a=fmtp") for line in lines):
            lines.append(self.ffmpeg.stdout.readline())
            assert lines[-1], "ffmpeg ended"
        self.description = "".join(line for line in lines if not line.startswith("SDP:"))
        self.listener = socket.create_server(("127.0.0.1", port))
        self.client = None
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            self.client, _ = self.listener.accept()
            requests = self.client.makefile("r", newline="\r\n")
            while line := requests.readline():
                method, fields = line.split()[0], {}
                while (field := requests.readline().strip()) != "":
                    name, _, value = field.partition(":")
                    fields[name.lower()] = value.strip()
                self.answer(method, fields)
                if method == "PLAY":
                    while True:
                        packet = self.packets.recv(65536)
                        self.client.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
        except (OSError, ValueError, IndexError):
            return  # killed, or the client has gone

    def answer(self, method, fields):
        body, head = "", [f"CSeq: {fields.get('cseq', 0)}"]
        if method == "OPTIONS":
            head.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            body = self.description
            head += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            head += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
        else:
            head.append("Session: 1")
        self.client.sendall("\r\n".join(["RTSP/1.0 200 OK", *head, "", body]).encode())

    def kill(self):
        self.ffmpeg.kill()
        self.ffmpeg.wait()
        self.ffmpeg.stdout.close()
        for used in (self.client, self.listener, self.packets):
            if used is not None:
                shut(used)


def shut(used):
    """Closes a socket so that a thread that waits for it wakes up."""
    with suppress(OSError):
        used.shutdown(socket.SHUT_RDWR)
    used.close()
