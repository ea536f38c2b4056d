"""A server that answers as Redis does, says OK to all that it is told, and does as it likes: for a test to change.

Arguments: --port PORT --then VALUE: what each of its settings is once one was told; then it refuses all others.
"""

import os
import socket
import sys
from pathlib import Path

Path("/proc/self/comm").write_text("redis-server")
port, then = int(sys.argv[2]), sys.argv[4]
first = now = "1000"


def bulk(text: str) -> bytes:
    """As RESP has it."""
    return f"${len(text)}\r\n{text}\r\n".encode()


with socket.create_server(("127.0.0.1", port)) as server:
    print("ready", flush=True)
    while True:
        with server.accept()[0] as client, client.makefile("rb") as told:
            while line := told.readline():
                words = [told.read(int(told.readline()[1:]) + 2)[:-2].decode() for _ in range(int(line[1:]))]
                if words[0] == "INFO":
                    client.sendall(bulk(f"redis_version:7.0.0\r\nprocess_id:{os.getpid()}\r\n"))
                elif words[1] == "GET":
                    client.sendall(b"*2\r\n" + bulk(words[2]) + bulk(now))
                else:
                    refused = then == "refused" or now == then != first
                    now = then
                    client.sendall(b"-ERR no\r\n" if refused else b"+OK\r\n")
