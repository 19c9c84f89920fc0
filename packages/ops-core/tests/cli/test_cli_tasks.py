"""Commands about tasks, through a server and on the store: the same answers and exit codes from both."""

import json

import pytest


@pytest.fixture(scope="module", params=["store", "server"])
def beside_a_worker(request, program_in, tmp_path_factory):
    """The program beside a worker; the commands either ask the server or open the store."""
    program = program_in(tmp_path_factory.mktemp("cli"))
    with program.serving() as url:
        if request.param == "server":
            program.env |= {"OPSPAWN_URL": url, "OPSPAWN_STORE_URL": "sqlite:////nowhere/x.db"}
        yield program


@pytest.fixture
def cli(beside_a_worker):
    for name in ("go", "begun", "sent.txt"):
        (beside_a_worker.directory / name).unlink(missing_ok=True)
    return beside_a_worker


@pytest.fixture(scope="module")
def empty(program_in, tmp_path_factory):
    """The program on a store without tasks."""
    program = program_in(tmp_path_factory.mktemp("empty"))
    program("migrate")
    return program


def submit(cli, agent, *more):
    return cli("submit", "go", "--agent", agent, *more).stdout.strip()


def test_a_submitted_task_is_followed_to_its_end(cli):
    *steps, task = cli.json("submit", "go", "--agent", "measurer", "--wait")
    assert [step["seq"] for step in steps] == list(range(len(steps)))
    assert task["status"] == "completed"
    assert cli.json("show", task["id"]) == [*steps, task]
    assert cli.json("watch", task["id"], "--after", "2") == [*steps[3:], task]
    assert "Measured." in cli("watch", task["id"]).stdout


def test_a_conversation_is_gone_on_with_shown_and_deleted(cli):
    thread = f"chat-{id(cli)}"
    for goal in ("What is 2 + 3?", "What is 4 * 5?"):
        cli("submit", goal, "--agent", "assistant", "--thread", thread, "--wait")
    *tasks, told = cli.json("thread", "show", thread)
    assert [task["input"] for task in tasks] == ["What is 2 + 3?", "What is 4 * 5?"]
    assert (told["id"], told["turns"], told["current_task"]) == (thread, 2, None)
    shown = cli("thread", "show", thread).stdout
    said = "needs the tool calculator"  # which this agent has not
    assert (
        shown.index("What is 2 + 3?") < shown.index(said) < shown.index("What is 4 * 5?") < shown.rindex(said)
    )
    assert cli.json("show", tasks[1]["id"])[0]["earlier"] == 1
    assert thread in cli("show", tasks[1]["id"]).stdout
    assert [task["id"] for task in cli.json("list", "--thread", thread)] == [tasks[1]["id"], tasks[0]["id"]]
    assert told in cli.json("thread", "list")
    assert "2 turns" in cli("thread", "list").stdout
    held = submit(cli, "assistant", "--thread", thread, "--run-at", "2999-01-01T00:00:00Z")
    assert held in cli("thread", "delete", thread, code=7).stderr
    cli("cancel", held)
    cli("watch", held, code=4)
    assert cli.json("thread", "delete", thread) == [{"tasks": 3}]
    assert "no thread" in cli("thread", "show", thread, code=3).stderr
    cli("show", held, code=3)


def test_what_is_spent_and_what_nobody_remembers_is_told(cli):
    (spending,) = cli.json("spending")
    assert (spending["spent_usd"], spending["limit_usd"]) == (0.0, None)
    asked = cli("memory", "recall", "x", "--agent", "assistant", code=2)
    assert "assistant remembers nothing" in asked.stderr


def test_what_agents_remember_is_listed_and_forgotten(program_in, tmp_path):
    program = program_in(tmp_path)
    (tmp_path / "memory.toml").write_text('[agents.clerk.memory]\nremember = "outcome"\n')
    program.env |= {"OPSPAWN_CONFIG": "memory.toml", "OPSPAWN_APP": ""}
    told = program("run", "Say hello to Kim.").stdout
    assert "recalls" in told
    (note,) = program.json("memory", "list", "--agent", "clerk")
    assert note["text"].startswith("Asked: Say hello to Kim.")
    assert (note["agent"], note["key"]) == ("clerk", "")
    assert "1 note" in program("run", "Say hello to Kim.").stdout
    assert len(program("memory", "list").stdout.splitlines()) == 4
    (found,) = program.json("memory", "recall", "hello", "--agent", "clerk", "--limit", "1")
    assert found["score"] > 0
    assert program("memory", "forget", code=2).stderr
    assert program("memory", "forget", "--agent", "nobody").stdout == "forgot 0 notes\n"
    assert program("memory", "forget", "--id", note["id"]).stdout == "forgot 1 note\n"
    assert program("memory", "forget", "--all").stdout == "forgot 1 note\n"
    assert program.json("memory", "list") == []


def test_many_tasks_are_submitted_from_a_file(cli):
    later = "2999-01-01T00:00:00Z"
    lines = [
        {"agent": "assistant", "input": "one", "run_at": later, "idempotency_key": f"many-{id(cli)}"},
        {"agent": "nobody", "input": "two"},
        {"input": {"n": 3}, "run_at": later},
    ]
    (cli.directory / "tasks.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    done = cli("submit", "--file", "tasks.jsonl", "--agent", "assistant", code=7)
    first, last = done.stdout.split()
    assert done.stderr.startswith("line 3: ")
    assert "nobody" in done.stderr
    assert cli.json("show", last)[-1]["input"] == {"n": 3}
    again = cli.json("submit", "--file", "tasks.jsonl", "--agent", "assistant", code=7)
    assert [result["status"] for result in again] == [200, 422, 202]
    assert again[0]["task_id"] == first


@pytest.mark.parametrize(
    "text, options, said",
    [
        ('{"agent": "assistant", "input": "x"}\n{', [], "tasks.jsonl, line 2 is not JSON"),
        ('{"agent": "assistant", "input": 5}', [], "line 1: input: must be a text or a JSON object"),
        ('{"agent": "assistant", "input": "x"}', ["--priority", "1"], "--file takes no priority"),
    ],
)
def test_a_file_that_is_wrong_submits_nothing(empty, text, options, said):
    (empty.directory / "tasks.jsonl").write_text(text)
    assert said in empty("submit", "--file", "tasks.jsonl", *options, code=2).stderr
    assert empty.json("list") == []


def test_everything_that_can_be_said_about_a_task_is_kept(cli):
    (task,) = cli.json(
        *("submit", "--agent", "assistant", "--input", '{"a": [1, null]}'),
        *(
            "--label",
            "team=search",
            "--label",
            "urgent=",
            "--priority",
            "-3",
            "--run-at",
            "2100-01-01T00:00:00Z",
        ),
        *("--timeout", "60", "--max-attempts", "2", "--budget-steps", "9", "--budget-tokens", "99"),
        *("--budget-seconds", "1.5", "--idempotency-key", "k1"),
    )
    assert task["input"] == {"a": [1, None]}
    assert task["labels"] == {"team": "search", "urgent": ""}
    assert (task["priority"], task["status"]) == (-3, "pending")
    shown = cli("show", task["id"]).stdout
    assert "team=search" in shown


def test_an_idempotency_key_stands_for_one_request(cli):
    first = submit(cli, "measurer", "--idempotency-key", "once")
    assert submit(cli, "measurer", "--idempotency-key", "once") == first
    assert "idempotency" in cli("submit", "other", "--idempotency-key", "once", code=7).stderr


def test_the_input_may_come_from_a_file(cli):
    (cli.directory / "input.json").write_text(json.dumps({"from": "a file"}))
    (task,) = cli.json("submit", "--input", "@input.json")
    assert (task["agent"], task["input"]) == ("assistant", {"from": "a file"})


@pytest.mark.parametrize(
    "arguments, code, told",
    [
        (["submit"], 2, "give a GOAL"),
        (["submit", "go", "--input", "1"], 2, "give a GOAL"),
        (["submit", "--input", "{"], 2, "--input"),
        (["submit", "--input", "@none.json"], 2, "none.json"),
        (["submit", "--input", "[1]"], 2, "input"),
        (["submit", "go", "--label", "x"], 2, "KEY=VALUE"),
        (["submit", "go", "--label", "a=1", "--label", "a=2"], 2, "twice"),
        (["submit", "go", "--label", "?=1"], 2, "labels"),
        (["submit", "go", "--run-at", "tomorrow"], 2, "run_at: must be a moment"),
        (["submit", "go", "--budget-steps", "0"], 2, "budget.steps"),
        (["submit", "go", "--priority", "5000"], 2, "priority"),
        (["submit", "go", "--agent", "nobody"], 3, "nobody"),
        (["list", "--status", "lost"], 2, "status"),
        (["list", "--limit", "0"], 2, "--limit"),
        (["show", "00000000-0000-7000-8000-000000000000"], 3, "there is no task"),
        (["watch", "00000000-0000-7000-8000-000000000000"], 3, "there is no task"),
        (["cancel", "00000000-0000-7000-8000-000000000000"], 3, "there is no task"),
        (["retry", "nonsense"], 3, "there is no task"),
        (["approve", "nonsense", "x"], 3, "there is no task"),
    ],
)
def test_what_is_wrong_is_named(empty, arguments, code, told):
    done = empty(*arguments, code=code)
    assert told in done.stderr
    assert done.stdout == ""


def test_a_failed_task_can_be_tried_again(cli):
    assert (
        cli.json("submit", "go", "--agent", "loser", "--wait", code=1)[-1]["error"]["code"] == "no_progress"
    )
    failed = cli.json("list")[0]["id"]
    again = cli("retry", failed).stdout.strip()
    assert again != failed
    assert cli.json("watch", again, code=1)[-1]["id"] == again


def test_a_task_that_has_completed_cannot_be_tried_again(cli):
    task = cli.json("submit", "go", "--agent", "measurer", "--wait")[-1]["id"]
    assert "completed" in cli("retry", task, code=7).stderr


def test_a_cancelled_task_ends(cli):
    task = submit(cli, "measurer", "--run-at", "2100-01-01T00:00:00Z")
    assert cli("cancel", task).stdout == "cancelled\n"
    cli("watch", task, code=4)
    assert cli("cancel", task).stdout == "cancelled\n"


def test_time_runs_out_for_who_follows_and_not_for_the_task(cli):
    task = submit(cli, "holder")
    cli.file("begun")
    assert cli.json("watch", task, "--within", "0.2", code=6)[-1]["status"] == "running"
    (cli.directory / "go").touch()
    cli("watch", task)


@pytest.mark.parametrize("verb, status, sent", [("approve", "approved", True), ("deny", "denied", False)])
def test_a_person_answers(cli, verb, status, sent):
    task = submit(cli, "sender")
    watching = cli.start("watch", task)
    for line in watching.stdout:
        if "opspawn approve" in line:
            break
    assert task in [found["id"] for found in cli.json("list", "--status", "waiting", "--status", "running")]
    cli("watch", task, "--within", "0.5", code=5)
    approval = line.split()[-1]
    assert status in cli(verb, task, approval).stdout
    assert watching.wait(60) == 0
    assert (cli.directory / "sent.txt").exists() is sent
    cli(verb, task, approval)  # the same again changes nothing
    other = "deny" if verb == "approve" else "approve"
    assert "before" in cli(other, task, approval, code=7).stderr


def test_lists_can_be_narrowed(cli):
    submit(cli, "measurer", "--label", "kept=yes", "--wait")
    other = submit(cli, "loser", "--label", "kept=no")
    (kept,) = [task["id"] for task in cli.json("list", "--label", "kept=yes")]
    assert [task["id"] for task in cli.json("list", "--label", "kept", "--agent", "loser")] == [other]
    assert kept in [task["id"] for task in cli.json("list", "--status", "completed", "--label", "kept")]
    assert cli("list", "--label", "kept=yes").stdout.startswith(f"{kept}  completed  measurer")
    assert len(cli.json("list", "--limit", "1")) == 1


def test_agents_are_listed(cli):
    assert "sender" in [agent["name"] for agent in cli.json("agents")]
    shown = cli("agents").stdout
    assert "measure " in shown
    assert "unsafe, asks first" in shown


def test_where_nothing_is_nothing_is_made(opspawn):
    assert "there is no store" in opspawn("list", code=69).stderr
    assert list(opspawn.directory.iterdir()) == []


def test_a_server_that_is_not_there_is_told(opspawn):
    done = opspawn("list", "--url", "http://127.0.0.1:9", code=69)
    assert "http://127.0.0.1:9 does not answer" in done.stderr


def test_what_ended_long_ago_is_deleted_on_demand(opspawn):
    done = opspawn.json("run", "What is 6 * 7?")[-1]["id"]
    waiting = opspawn.json("submit", "Wait for a worker.")[-1]["id"]
    for age in ("30", "30 d", "-1d", "1w", ""):
        assert (
            "--older-than takes a number and a unit" in opspawn("purge", "--older-than", age, code=2).stderr
        )
    assert opspawn("purge", "--older-than", "1h").stdout == "deleted 0 tasks\n"
    assert opspawn("purge", "--older-than", "0s").stdout == "deleted 1 task\n"
    opspawn("show", done, code=3)
    assert opspawn.status(waiting) == "pending"


# --- attachments -------------------------------------------------------------------------------------------------


def test_files_go_with_a_goal_and_are_shown_by_their_names(cli):
    (cli.directory / "dot.png").write_bytes(b"\x89PNG")
    task = cli.json("submit", "look", "--agent", "measurer", "--attach", "dot.png", "--wait")[-1]
    attached = {"$attachment": {"media_type": "image/png", "data": "iVBORw==", "name": "dot.png"}}
    assert task["input"] == {"goal": "look", "attachments": [attached]}
    for command in (("show", task["id"]), ("list",)):
        shown = cli(*command).stdout
        assert "[attachment 1: dot.png]" in shown
        assert "iVBORw" not in shown


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("look", "--attach", "nope.png"), "--attach: nope.png: No such file"),
        (("look", "--attach", "unknown"), "--attach: what unknown is cannot be told"),
        (("--input", "{}", "--attach", "dot.png"), "--attach goes with GOAL"),
    ],
)
def test_what_cannot_be_attached_is_said_before_there_is_a_task(empty, arguments, told):
    (empty.directory / "unknown").write_bytes(b"x")
    refused = empty("submit", *arguments, code=2)
    assert told in refused.stderr
    assert empty("list", "--json").stdout == ""


def test_what_is_halted_is_shown_and_lifted(program_in, tmp_path):
    cli = program_in(tmp_path)
    cli("migrate")
    (halt,) = cli.json("halt", "agent", "sender", "--reason", "complaints\x1b[2J since noon")
    shown = cli("show", submit(cli, "sender")).stdout
    assert "\x1b" not in shown
    assert "agent sender is halted" in shown
    assert f"opspawn lift {halt['id']}" in shown
    assert cli("lift", halt["id"], "--reason", "mended").stdout == "lifted: agent sender\n"
    assert cli.json("halts", "--all")[0]["lifted_reason"] == "mended"
    assert "target must say which tool" in cli("halt", "tool", code=2).stderr
