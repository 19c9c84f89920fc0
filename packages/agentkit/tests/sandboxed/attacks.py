"""What hostile code tries. Each function does harm where nothing holds it, and says what it has got hold of."""

# mypy: ignore-errors

import ctypes
import gc
import json
import mmap
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)


def named() -> None:
    """Be found from outside by this name."""
    libc.prctl(15, os.environ.get("SBX_NAME", "sbx").encode(), 0, 0, 0)


def reached(*attempts):
    """What the attempts got, without those that were refused."""
    got = []
    for attempt in attempts:
        try:
            found = attempt()
        except (OSError, ValueError, AttributeError, subprocess.SubprocessError):
            continue
        if found not in (None, False, "", b""):
            got.append(repr(found))
    return got


# --- it does not end ----------------------------------------------------------------------------------------------


def loop():
    named()
    while True:
        pass


def loop_deaf():
    named()
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    while True:
        try:
            while True:
                time.sleep(1)
        except BaseException:
            pass


def loop_in_c():
    named()
    re.match(r"(a+)+$", "a" * 64 + "b")


def stop_itself():
    named()
    os.kill(os.getpid(), signal.SIGSTOP)
    threading.Event().wait()


def threads_that_do_not_end():
    for _ in range(4):
        threading.Thread(target=loop).start()
    return "returned"


def finalizer_that_does_not_end():
    class Sticky:
        def __del__(self):
            loop()

    sys.modules["sticky"] = Sticky()
    return "returned"


def sleep_with_closed_outputs():
    named()
    for descriptor in range(5):
        try:
            os.close(descriptor)
        except OSError:
            pass
    loop_deaf()


# --- it wants more than there is ----------------------------------------------------------------------------------


def fill_memory():
    held = []
    while True:
        held.append(bytearray(1 << 20))


def fill_shared_memory():
    held = []
    while True:
        held.append(mmap.mmap(-1, 8 << 20))
        held[-1].write(b"x" * (8 << 20))


def fill_files_in_memory():
    held = []
    for _ in range(100):
        held.append(os.memfd_create("x"))
        for _ in range(64):
            os.write(held[-1], b"x" * (1 << 20))
    return "filled"


def fill_segments():
    for _ in range(100):
        segment = libc.shmget(0, 64 << 20, 0o1600)
        if segment < 0:
            return "refused"
        address = libc.shmat(segment, None, 0)
        if address == -1:
            return "refused"
    return "filled"


def one_huge_number():
    return len(str(9 ** (9**8)))


def fall_down_the_stack():
    sys.setrecursionlimit(10**9)

    def deeper(value):
        return [deeper([value])]

    return deeper(1)


def fork_bomb():
    named()
    while True:
        try:
            if os.fork() == 0:
                named()
        except BlockingIOError:
            time.sleep(0.01)


def thread_bomb():
    named()
    threading.stack_size(64 << 10)
    made = 0
    while made < 5000:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        made += 1
    return made


def flood_output():
    while True:
        os.write(1, b"x" * 65536)


def flood_errors():
    while True:
        sys.stderr.write("x" * 65536)


def flood_result():
    return "x" * (64 << 20)


def flood_result_behind_the_back():
    while True:
        os.write(3, b"x" * 65536)


def flood_descriptors():
    held = []
    try:
        while len(held) < 100_000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    return len(held)


def flood_reports():
    for _ in range(1000):
        try:
            os.write(4, b'{"report": "' + b"x" * 60000 + b'"}\n')
        except OSError:
            return "closed"
    return "told"


def fill_disk():
    for index in range(10_000):
        with open(f"file{index}", "wb") as file:
            file.write(b"x" * (4 << 20))
    return "filled"


def fill_one_file():
    with open("large", "wb") as file:
        while True:
            file.write(b"x" * (4 << 20))


def fill_inodes():
    for index in range(200_000):
        os.close(os.open(f"file{index}", os.O_CREAT | os.O_WRONLY))
    return "filled"


# --- it looks around ----------------------------------------------------------------------------------------------


def read_files(paths):
    def read(path):
        with open(path, "rb") as file:
            return file.read(4096)

    return reached(*(lambda path=path: read(path) for path in paths))


def read_through_links(path):
    def through(make):
        make(path, "link")
        try:
            with open("link", "rb") as file:
                return file.read(4096)
        finally:
            os.unlink("link")

    def up():
        with open("../" * 40 + path.lstrip("/"), "rb") as file:
            return file.read(4096)

    return reached(lambda: through(os.symlink), lambda: through(os.link), up)


def read_of_processes(pid):
    names = [
        f"/proc/{who}/{what}"
        for who in (pid, os.getppid(), 1, "self", "thread-self")
        for what in ("environ", "mem")
    ]
    found = read_files(names)
    found += reached(lambda: os.readlink(f"/proc/{pid}/cwd"), lambda: os.listdir(f"/proc/{pid}/fd"))
    found += reached(lambda: os.listdir(f"/proc/{pid}/root"))
    return found


def read_environment():
    return dict(os.environ)


def read_descriptors():
    def content(descriptor):
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, 4096)

    return reached(*(lambda number=number: content(number) for number in range(3, 1024)))


def read_memory_for(text):
    """Of this process: what the worker had in its own must not be in it."""
    wanted = text[::-1]
    return sum(isinstance(each, str) and wanted in each for each in gc.get_objects())


def change_files(path):
    def write():
        with open(path, "ab") as file:
            return file.write(b"changed")

    found = reached(
        write,
        lambda: os.unlink(path) or "removed",
        lambda: os.rename(path, path + "x") or "renamed",
        lambda: os.truncate(path, 0) or "truncated",
    )
    for change in (
        lambda: os.chmod(path, 0o777),
        lambda: os.utime(path, (1, 1)),
        lambda: os.setxattr(path, "user.x", b"1"),
    ):
        try:
            change()
        except OSError:
            pass
    return found


def write_somewhere(folders):
    def write(folder):
        path = os.path.join(folder, "sbx-intruder")
        with open(path, "w") as file:
            file.write("x")
        return path

    return reached(*(lambda folder=folder: write(folder) for folder in folders))


# --- it wants to talk to somebody ---------------------------------------------------------------------------------


def connect_tcp(port):
    def connect(family, host):
        with socket.socket(family) as sock:
            sock.settimeout(1)
            sock.connect((host, port))
            return "connected"

    return reached(
        lambda: connect(socket.AF_INET, "127.0.0.1"),
        lambda: connect(socket.AF_INET6, "::1"),
        lambda: socket.create_connection(("127.0.0.1", port), 1).fileno(),
    )


def connect_by_hand(port):
    """With the system calls themselves."""
    address = b"\x02\x00" + port.to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
    sock = libc.socket(2, 1, 0)
    if sock < 0:
        return []
    return ["connected"] if libc.connect(sock, address, 16) == 0 else []


def send_udp(port):
    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            return sock.sendto(b"x", ("127.0.0.1", port))

    return reached(send)


def connect_unix(path):
    def connect(name):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(name)
            return "connected"

    return reached(lambda: connect(path), lambda: connect("\0" + path))


def send_through_a_pair(path):
    """A datagram can be sent to any name through a socket that is connected to another one."""

    def send(name):
        one, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        return one.sendto(b"x", name)

    return reached(lambda: send(path), lambda: send("\0" + path))


def strange_sockets():
    def made(family, kind, protocol=0):
        with socket.socket(family, kind, protocol) as sock:
            return sock.family.name if hasattr(sock.family, "name") else str(sock.family)

    return reached(
        lambda: made(socket.AF_NETLINK, socket.SOCK_RAW),
        lambda: made(socket.AF_PACKET, socket.SOCK_RAW),
        lambda: made(socket.AF_VSOCK, socket.SOCK_STREAM),
        lambda: made(socket.AF_INET, socket.SOCK_RAW, 1),
        lambda: made(socket.AF_ALG, socket.SOCK_SEQPACKET),
        lambda: made(31, socket.SOCK_STREAM),  # Bluetooth
        lambda: made(44, socket.SOCK_RAW),  # XDP
    )


def ask_a_ring():
    parameters = ctypes.create_string_buffer(256)
    return ["ring"] if libc.syscall(425, 4, parameters) >= 0 else []


def resolve_names():
    return reached(lambda: socket.getaddrinfo("example.com", 80))


# --- it wants to get at others ------------------------------------------------------------------------------------


def kill_others(pid):
    for target in (pid, os.getppid(), -1, -pid, 0):
        for number in (signal.SIGTERM, signal.SIGKILL):
            if target not in (0, os.getpid()):
                try:
                    os.kill(target, number)
                except OSError:
                    pass
    try:
        descriptor = os.pidfd_open(pid)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        pass
    return "alive"


def trace_others(pid):
    found = []
    for request in (16, 0x4206):  # attach, seize
        if libc.ptrace(request, pid, None, None) == 0:
            found.append("traced")
    here, there = ctypes.create_string_buffer(8), ctypes.c_void_p(0x400000)
    vectors = (ctypes.c_void_p * 2)(ctypes.addressof(here), 8), (ctypes.c_void_p * 2)(there, 8)
    if libc.process_vm_readv(pid, vectors[0], 1, vectors[1], 1, 0) > 0:
        found.append("read")
    return found


def limit_others(pid):
    return reached(lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0)) and "limited")


def escape_namespaces():
    found = []
    for flags in (0x10000000, 0x20000, 0x40000000, 0x20000000):
        if libc.unshare(flags) == 0:
            found.append(f"unshared {flags:x}")
    if libc.mount(b"none", b"/", None, 1 << 14 | 1 << 18, None) == 0:
        found.append("mounted")
    if libc.chroot(b"/") == 0:
        found.append("chroot")
    return found


def raise_limits():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return reached(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (before * 4, before * 4)) or "raised")


def run_programs():
    return reached(
        lambda: subprocess.run(["/bin/sh", "-c", "id"], capture_output=True, check=True).stdout,
        lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]) == 0,
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
    )


def leave_a_daemon(file):
    """Twice removed from whoever could wait for it, in a session of its own, with closed outputs."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            named()
            for descriptor in range(5):
                os.close(descriptor)
            while True:
                time.sleep(0.05)
                try:
                    with open(file, "a") as out:
                        out.write("still here")
                except OSError:
                    pass
        os._exit(0)
    return "left"


def leave_a_child_with_the_output():
    """It keeps the outputs open, so that nobody ever reads their end."""
    if os.fork() == 0:
        named()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        while True:
            time.sleep(1)
    print("before")
    return "returned"


def outlive_the_parent():
    libc.prctl(1, 0, 0, 0, 0)
    return "unbound" if libc.prctl(1, 0, 0, 0, 0) == 0 else "refused"


# --- it leaves something bad behind -------------------------------------------------------------------------------


def return_not_a_number():
    return {"value": float("nan")}


def return_infinity_as_text():
    os.write(3, b'{"value": [Infinity, NaN]}')
    os._exit(0)


def return_depth():
    os.write(3, b'{"value": ' + b"[" * 200_000 + b"]" * 200_000 + b"}")
    os._exit(0)


def return_an_object():
    return threading.Lock()


class Evil(dict):
    """Whoever unpickles it runs a program."""

    def __reduce__(self):
        return os.system, ("touch /tmp/sbx-intruder",)

    def items(self):
        raise KeyboardInterrupt


def return_evil():
    return Evil(a=1)


def return_a_pickle():
    import pickle

    os.write(3, pickle.dumps(Evil()))
    os._exit(0)


def return_garbage():
    os.write(3, b"\xff\xfe\x00 not json")
    os._exit(0)


def return_surrogates():
    os.write(3, b'{"value": "\\ud800"}')
    os._exit(0)


def return_a_wrong_envelope():
    os.write(3, json.dumps({"event": "unable", "why": "try again elsewhere"}).encode())
    os._exit(0)


def return_two():
    os.write(3, b'{"value": 1}')
    return 2


def return_nothing():
    os._exit(0)


def exit_badly():
    os._exit(7)


def leave_by_exception():
    raise SystemExit(0)


def interrupt():
    raise KeyboardInterrupt


class Unspeakable(Exception):
    """Its text cannot be had."""

    def __str__(self):
        raise RuntimeError


def raise_unspeakable():
    raise Unspeakable


def crash():
    ctypes.string_at(0)


def abort():
    os.abort()


# --- it wants to meet itself again --------------------------------------------------------------------------------

STATE = {"calls": 0}


def remember(word):
    """Whatever an earlier call has left of itself."""
    STATE["calls"] += 1
    left = [STATE["calls"] - 1] if STATE["calls"] > 1 else []
    left += [name for name in os.listdir(".") if name.startswith("left")]
    left += [os.environ["LEFT"]] if "LEFT" in os.environ else []
    left += [sys.modules["json"].left] if hasattr(sys.modules["json"], "left") else []
    os.environ["LEFT"] = sys.modules["json"].left = word
    with open(f"left-{word}", "w") as file:
        file.write(word)
    return left


# --- it may reach one host, and wants others ----------------------------------------------------------------------


def reach_others(port, others):
    """By sockets and by the proxy of a jail: names and addresses that were not granted."""

    def direct(host, number):
        with socket.create_connection((host, number), 2) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return sock.recv(100)

    def connected(host, number):
        with socket.socket() as sock:
            sock.settimeout(2)
            sock.connect(("127.0.0.2", 3128))
            sock.sendall(f"CONNECT {host}:{number} HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n".encode())
            answer = sock.recv(1000)
            return answer if b" 200 " in answer else None

    targets = [(host, number) for host in others for number in (port, 80, 443)]
    return reached(*(lambda to=to, how=how: how(*to) for to in targets for how in (direct, connected)))


def flood_with_connections(host, port):
    held = []
    for _ in range(500):
        try:
            held.append(socket.create_connection((host, port), 2))
        except OSError:
            break
    time.sleep(0.2)
    alive = 0
    for sock in held:
        try:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            alive += sock.recv(4) == b"HTTP"
        except OSError:
            pass
    return alive


def babble_at_the_proxy():
    answers = []
    for said in (
        b"x" * (1 << 20),
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT x HTTP/1.1\r\n\r\n",
        b"CONNECT [::1 HTTP/1.1\r\n\r\n",
        b"\x05\x01\x00\r\n\r\n",
        b"GET ftp://x/ HTTP/1.1\r\n\r\n",
        b"CONNECT x:99999 HTTP/1.1\r\n\r\n",
        b"CONNECT \xff:80 HTTP/1.1\r\n\r\n",
        b"CONNECT a.invalid\x00.test:443 HTTP/1.1\r\n\r\n",
    ):
        try:
            with socket.create_connection(("127.0.0.2", 3128), 2) as sock:
                sock.settimeout(2)
                sock.sendall(said)
                answers.append(sock.recv(12).decode())
        except OSError:
            answers.append("gone")
    return answers


def open_settings_of_the_kernel():
    """For writing; nothing is written."""
    paths = [
        "/proc/sysrq-trigger",
        "/proc/self/oom_score_adj",
        "/proc/pressure/memory",
        "/proc/irq/default_smp_affinity",
    ]
    paths += [f"/proc/sys/{path}" for path in ("kernel/core_pattern", "kernel/ns_last_pid", "vm/drop_caches")]
    return reached(*(lambda path=path: os.open(path, os.O_WRONLY) for path in paths))


def arm_timers():
    libc.timer_create.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    timer, made = ctypes.c_void_p(), 0
    while made < 50_000 and libc.timer_create(0, None, ctypes.byref(timer)) == 0:
        made += 1
    return made
