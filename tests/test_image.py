"""The image: what can be held to without an engine that builds it.

Style and known mistakes of the Dockerfile are hadolint's (`make lint`). Here: what we promise of it, and that its words
are those of the program.
"""

import re
from pathlib import Path

import yaml

from ops_core.settings import PREFIX, read_settings

from .health import is_well, server  # type: ignore[import-not-found]

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, each on one line, without comments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def test_both_stages_begin_with_one_tag_that_names_a_version():
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", bases[0])


def test_everything_that_is_fetched_is_held_to_its_hash():
    installs = [
        part for word, rest in instructions() if word == "RUN"
        for part in rest.split("&&") if "pip install" in part
    ]  # fmt: skip
    assert len(installs) == 3
    for part in installs:
        assert "--no-deps" in part
        assert "--require-hashes" in part or "--no-index" in part
    assert not any(word == "ADD" or "apt-get" in rest or "curl" in rest for word, rest in instructions())


def test_it_runs_as_nobody_special_and_holds_no_secret():
    last = instructions()[max(n for n, (word, _) in enumerate(instructions()) if word == "FROM") :]
    words = dict(last)
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", words["USER"])
    assert [word for word, _ in last].index("USER") < [word for word, _ in last].index("ENTRYPOINT")
    assert (words["ENTRYPOINT"], words["CMD"]) == ('["opspawn"]', '["serve"]')
    assert "EXPOSE" not in words  # nothing outside of the container can reach it yet
    settings = dict(re.findall(rf"({PREFIX}\w+)=(\S+)", words["ENV"]))
    assert read_settings(settings).log_format == "json"
    assert not re.search(r"(KEY|PASSWORD|SECRET|TOKEN)\w*=", " ".join(rest for _, rest in instructions()))


def test_what_is_copied_is_not_ignored():
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert kept[1] == "*"
    copied = [rest.split()[0] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    assert {source.split("/")[0] for source in copied} == {line[1:] for line in kept if line.startswith("!")}
    assert all((ROOT / source).exists() for source in copied)


def test_the_lock_of_what_is_run_is_a_part_of_the_lock_of_all():
    everything = blocks(ROOT / "requirements.lock")
    run = blocks(ROOT / "packages" / "ops-core" / "requirements.lock")
    assert {name.split("==")[0] for name in run} >= {
        "sqlalchemy",
        "psycopg",
        "uvicorn",
        "pika",
        "prometheus-client",
    }
    assert not {name.split("==")[0] for name in run} & {"pytest", "ruff", "sphinx", "mypy"}
    for name, hashes in run.items():
        assert hashes == everything.get(name), f"{name}: run `make lock`"


def blocks(lock: Path) -> dict[str, frozenset[str]]:
    """What a lock pins, with the hashes."""
    found = re.findall(
        r"^([\w.-]+==\S+).*?((?:\\\n\s+--hash=\S+\s*)+)", lock.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {name: frozenset(re.findall(r"--hash=(\S+)", hashes)) for name, hashes in found}


async def test_its_check_of_health_tells_the_living_from_the_dead(tmp_path):
    (check,) = (rest for word, rest in instructions() if word == "HEALTHCHECK")
    program = yaml.safe_load(check[check.index("[") :])[2]
    async with server(tmp_path) as port:
        assert await is_well(program, port)
    assert not await is_well(program, port)
