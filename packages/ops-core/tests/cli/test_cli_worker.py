"""Workers without an API, and an API without a worker."""

import signal

import pytest

SECONDS = 60


def test_an_api_alone_leaves_the_work_to_a_worker(opspawn):
    server = opspawn.start("serve", "--port", "0", "--no-worker")
    url = next(line.split()[1].removesuffix("/api/v1") for line in server.stdout if "/api/v1" in line)
    submit = ("submit", "Hello", "--agent", "assistant", "--url", url, "--wait", "--within", "1")
    task_id = str(opspawn.json(*submit, code=6)[-1]["id"])
    assert opspawn.status(task_id) == "pending"
    worker = opspawn.start("worker", "--concurrency", "2")
    said = [next(worker.stdout) for _ in range(3)]
    assert "2 runs" in said[0]
    opspawn("watch", task_id, "--url", url)
    for process in (worker, server):
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_worker_refuses_a_store_that_nobody_else_can_use(opspawn, url):
    done = opspawn("worker", code=2, OPSPAWN_STORE_URL=url)
    assert "store_url" in done.stderr
    assert "in memory" in done.stderr


def test_several_workers_with_wrong_settings_say_so_once(opspawn):
    done = opspawn("worker", "--processes", "3", code=2, OPSPAWN_APP="nothing:agents")
    assert done.stderr.count("opspawn: ") == 1
    assert "none can be started" in done.stderr


@pytest.mark.parametrize("options", [("--processes", "0"), ("--concurrency", "0"), ("--port", "1")])
def test_options_of_a_worker_are_checked(opspawn, options):
    opspawn("worker", *options, code=2)
