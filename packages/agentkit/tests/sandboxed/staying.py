"""A program that stays, and what a hostile one does: its first argument says which. Not imported: it is run."""

# mypy: ignore-errors

import ctypes
import json
import os
import signal
import sys
import time
from contextlib import suppress

NAME = os.environ.get("SBX_NAME", "sbx")


def named():
    """Be found from outside by this name."""
    ctypes.CDLL(None).prctl(15, NAME.encode(), 0, 0, 0)


def say(value):
    print(json.dumps(value), flush=True)


def echo():
    """Say back each line."""
    say("here")
    for line in sys.stdin:
        say(line.rstrip("\n"))
    sys.exit(7)


def look():
    """What it finds around itself, and what of the given paths it can read."""
    found = {}
    for path in sys.argv[2:]:
        try:
            if os.path.isdir(path):
                found[path] = os.listdir(path)
            else:
                with open(path, "rb") as file:
                    found[path] = file.read(200).decode(errors="replace")
        except OSError as error:
            found[path] = error.errno
    descriptors = {int(name) for name in os.listdir("/proc/self/fd")}
    say(
        {
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "files": found,
            "descriptors": sorted(
                number for number in descriptors if number > 2 and number != max(descriptors)
            ),
            "processes": [name for name in os.listdir("/proc") if name.isdigit()],
        }
    )


def daemons():
    """Leave processes that no group, session, terminal or parent leads to."""
    named()
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            for number in range(1, signal.NSIG):
                with suppress(OSError, ValueError):
                    signal.signal(number, signal.SIG_IGN)
            if os.fork() == 0:
                for descriptor in range(3):
                    os.close(descriptor)
                time.sleep(1000)
            os._exit(0)
        os.wait()
    say("left")


def daemons_and_go():
    daemons()


def daemons_and_stay():
    daemons()
    time.sleep(1000)


def eat():
    named()
    say("eating")
    sys.stdin.readline()
    held = []
    while True:
        held.append(bytearray(4 << 20))


def eat_together():
    """Each of them less than a process may have."""
    named()
    say("eating")
    sys.stdin.readline()
    for _ in range(12):
        if os.fork() == 0:
            break
    held = bytearray(12 << 20)
    time.sleep(1000)
    del held


def bomb():
    named()
    say("forking")
    while True:
        with suppress(OSError):
            os.fork()


def flood():
    """To its output or its errors, for ever."""
    named()
    say("flooding")
    descriptor = int(sys.argv[2])
    while True:
        os.write(descriptor, b"x" * 65536)


def long_line():
    sys.stdout.write("x" * int(sys.argv[2]) + "\n")
    sys.stdout.flush()
    time.sleep(1000)


def deaf():
    named()
    for number in range(1, signal.NSIG):
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    say("deaf")
    while True:
        time.sleep(1000)


def stopped():
    named()
    say("stopping")
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(1000)


def polite():
    def leave(*_):
        os.write(1, b'"leaving"\n')
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    say("here")
    time.sleep(1000)


def write():
    for path in sys.argv[2:]:
        try:
            with open(path, "a") as file:
                file.write("written")
        except OSError as error:
            say(error.errno)
        else:
            say("written")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
