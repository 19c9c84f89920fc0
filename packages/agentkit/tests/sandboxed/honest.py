"""What honest tools do."""

import asyncio
import csv
import datetime as dt
import decimal
import io
import json
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def add(a: int, b: int) -> int:
    return a + b


def echo(value):
    return value


def greet(name="you", *, loudly=False):
    return f"Hello {name}{'!' if loudly else '.'}"


def speak():
    print("to everybody")
    print("to the operator", file=sys.stderr)
    return "said"


def numbers():
    import numpy as np

    matrix = np.arange(40_000, dtype=float).reshape(200, 200)
    return float((matrix @ matrix.T).trace())


def in_threads():
    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(lambda number: number * number, range(100)))


def own_files():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.txt")
        path.write_text("first\n")
        with path.open("a") as file:
            file.write("second\n")
        path.chmod(0o600)
        moved = path.rename(Path(folder, "moved.txt"))
        with zipfile.ZipFile(Path(folder, "z.zip"), "w") as archive:
            archive.write(moved, "moved.txt")
        with tempfile.TemporaryFile() as unnamed:
            unnamed.write(b"x")
        return moved.read_text().splitlines()


def by_a_program():
    done = subprocess.run(["sort", "-r"], input="a\nb\n", capture_output=True, text=True, check=True)
    return done.stdout.split()


def by_another_python():
    code = "import json; print(json.dumps({'a': 1}))"
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def in_a_database():
    with sqlite3.connect("notes.db") as database:
        database.execute("CREATE TABLE note (text TEXT)")
        database.executemany("INSERT INTO note VALUES (?)", [("one",), ("two",)])
    return [row[0] for row in sqlite3.connect("notes.db").execute("SELECT text FROM note ORDER BY text")]


async def asynchronous():
    async def later(value):
        await asyncio.sleep(0.01)
        return value

    lock = asyncio.Lock()
    async with lock:
        return await asyncio.gather(later(1), later(2), asyncio.to_thread(lambda: 3))


def large(size):
    return "x" * size


def unicode_text():
    return {"ключ": "héllo ✓ \U0001f600 \u202e \x00", "tab": "\t\n"}


def fails(text):
    raise ValueError(text)


def library():
    out = io.StringIO()
    csv.writer(out).writerows([["a", "b"], [1, decimal.Decimal("1.10")]])
    return [out.getvalue(), dt.date(2026, 11, 23).isoformat(), dt.datetime.now(dt.UTC).year > 2000]


def read(path):
    return Path(path).read_text()


def write(path, text):
    Path(path).write_text(text)
    return sorted(each.name for each in Path(path).parent.iterdir())


def who_am_i():
    import getpass
    import os

    return [getpass.getuser(), os.path.expanduser("~tool")]


def environment():
    import os

    return dict(os.environ)


def fetch(host, port):
    import http.client

    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request("GET", "/")
    return connection.getresponse().read().decode()


def tell_and_sleep(seconds):
    import os
    import time

    os.write(4, b'{"report": "begun"}\n')
    time.sleep(seconds)


def sleep(seconds):
    import time

    time.sleep(seconds)
    return "slept"


def stack():
    def deeper(depth):
        return 0 if depth == 0 else 1 + deeper(depth - 1)

    found = []
    thread = threading.Thread(target=lambda: found.append(deeper(900)))
    thread.start()
    thread.join()
    return [deeper(900), *found]


def secret_length(name):
    import os

    return len(os.environ[name])


def fail_with_secret(name):
    import os

    print(os.environ[name])
    raise ValueError(f"bad token {os.environ[name]}")


def is_loaded(module):
    return module in sys.modules


def fetch_by_urllib(url):
    import urllib.error
    import urllib.request

    try:
        return urllib.request.urlopen(url, timeout=5).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


async def fetch_by_streams(host, port, times=1):
    async def once():
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        found = (await reader.read()).partition(b"\r\n\r\n")[2].decode()
        writer.close()
        await writer.wait_closed()
        return found

    return await asyncio.gather(*(once() for _ in range(times)))


async def fetch_by_httpx(url):
    import httpx2

    def sync():
        with httpx2.Client() as client:
            return client.get(url).text

    async with httpx2.AsyncClient() as client:
        return [(await client.get(url)).text, await asyncio.to_thread(sync)]


def connect(host, port, how):
    """Ask for a connection as clients do, and say in words of one's own that it failed, or nothing."""
    try:
        if how == "http":
            import urllib.request

            urllib.request.urlopen(f"http://{host}:{port}/", timeout=5).close()
        elif how == "asyncio":
            import asyncio

            asyncio.run(asyncio.open_connection(host, port))
        elif how == "socket":
            with socket.socket() as plain:
                plain.settimeout(5)
                plain.connect((host, port))
        else:
            socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        if how == "swallowed":
            return "went on"
        raise RuntimeError("all connection attempts failed") from error
    return "connected"


def keep(path: str, text: str) -> str:
    """Write a file, and the folders above it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return str(Path(path).resolve())
