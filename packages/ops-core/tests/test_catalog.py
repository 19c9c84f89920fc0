"""What a deployment can run, as it is declared."""

import re
import sys
from pathlib import Path

import pytest

from agentkit.agent import Agent
from agentkit.budget.limits import Limits
from agentkit.errors import ModelAuthError
from agentkit.messages import Effect
from agentkit.models import NamedEndpoint
from agentkit.models.resilience.circuit_breaker import CircuitSettings
from agentkit.policies import Between, Inside, Rule, SecurityPolicy
from ops_core.config.catalog import DEFAULT_AGENT, Catalog, default_catalog, import_catalog
from ops_core.config.import_path import import_object
from ops_core.config.loader import read_catalog
from ops_core.errors import AgentNotFound, ConfigError

TOOLS = '''
from agentkit.tools import tool

@tool(effect="pure")
def one() -> int:
    """One."""
    return 1

def two() -> int:
    """Two."""
    return 2

def three() -> int:
    """Three."""
    return 3

def pay(amount: float, to: str) -> int:
    """Pay."""
    return 4

many = [one, two]
number = 7

class Set:
    async def specs(self):
        return []
    async def call(self, call, context):
        return None

toolset = Set()
'''


@pytest.fixture(autouse=True)
def imports_are_undone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("catalog_"):
            del sys.modules[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "catalog_tools.py").write_text(TOOLS)
    return tmp_path / "opspawn.toml"


def read(file: Path, text: str) -> Catalog:
    file.write_text(text)
    return read_catalog(file)


@pytest.mark.parametrize(
    "declared, setting",
    [
        ('model = "anthropic:claude-opus-5"', "temperature"),
        ('model = "mine:m"', "seed"),
        ('model = "mine:m"\nfallback = ["offline:planner"]', "seed"),
    ],
)
def test_a_setting_that_the_model_does_not_take_is_refused_when_the_file_is_read(
    file: Path, declared: str, setting: str
) -> None:
    endpoint = '[endpoints.mine]\nkind = "openai-responses"\nbase_url = "http://127.0.0.1:9/v1"\n'
    settings = f"[agents.a.settings]\n{setting} = 0\n"
    with pytest.raises(ConfigError, match=f"agent a: settings: {setting}: .* does not take the setting"):
        read(file, f"{endpoint}[agents.a]\n{declared}\n{settings}")


def test_a_fallback_need_not_take_every_setting(file: Path) -> None:
    table = '[agents.a]\nmodel = "offline:planner"\nfallback = ["anthropic:claude-opus-5"]\n'
    assert read(file, f"{table}[agents.a.settings]\ntemperature = 0\nseed = 1\n").names == ("a",)


# --- in Python ---------------------------------------------------------------------------------------------------


def test_agents_are_found_by_name():
    one, two = Agent("offline:planner", name="one"), Agent("offline:planner", name="two")
    catalog = Catalog([one])
    catalog.add(two, deps={"key": 1})
    assert catalog.names == ("one", "two")
    assert catalog.get("one").agent is one
    assert catalog.get("two").deps == {"key": 1}


def test_an_agent_that_is_not_there_is_not_found_among_those_that_are():
    with pytest.raises(AgentNotFound, match=r"'nobody'.*: one") as refused:
        Catalog([Agent("offline:planner", name="one")]).get("nobody")
    assert refused.value.field == "agent"
    with pytest.raises(AgentNotFound, match="none"):
        Catalog().get("nobody")


def test_two_agents_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="two agents are called one"):
        Catalog([Agent("offline:planner", name="one")] * 2)


def test_the_default_catalog_has_one_agent(tmp_path: Path):
    catalog = default_catalog(tmp_path)
    assert catalog.names == (DEFAULT_AGENT,)
    assert catalog.get(DEFAULT_AGENT).agent.model == "offline:planner"


def test_endpoints_are_known_to_all_agents_and_stay_when_agents_go():
    local = NamedEndpoint(base_url="http://127.0.0.1:9/v1")
    catalog = Catalog(
        [Agent("local:tiny", name="one"), Agent("offline:planner", name="two")], endpoints={"local": local}
    )
    left = catalog.without(["two"])
    assert (left.names, left.endpoints) == (("one",), {"local": local})
    with pytest.raises(ConfigError, match=r"endpoints\.openai: .*cannot be called 'openai'"):
        Catalog(endpoints={"openai": local})


# --- opspawn.toml ------------------------------------------------------------------------------------------------


def test_a_whole_declaration(file: Path):
    catalog = read(
        file,
        """
        [agents.researcher]
        model = "openai:gpt-x"
        instructions = "Be brief – always."
        tools = ["catalog_tools:one", "catalog_tools:three"]
        planning = "react"
        patience = 5
        tool_timeout_seconds = 45
        parallel_tools = false
        sequential_tools = ["add"]
        context = { window = 64_000, strategy = "drop_tool_results" }
        telemetry = { content = true }
        budget = { steps = 7, tokens = 1000, seconds = 2.5 }

        [agents.researcher.policy]
        allow = ["one", "t*"]
        deny = ["three"]
        ask = ["one"]
        ask_effects = ["unsafe"]
        ask_interrupted = false

        [agents.plain]
        """,
    )
    assert catalog.names == ("researcher", "plain")
    agent = catalog.get("researcher").agent
    assert (agent.name, agent.model, agent.instructions) == (
        "researcher",
        "openai:gpt-x",
        "Be brief – always.",
    )
    assert (agent.planning, agent.patience) == ("react", 5)
    assert (agent.tool_timeout, agent.parallel_tools) == (45, False)
    assert agent.sequential_tools == ("add",)
    assert (agent.context.window, agent.context.strategy) == (64_000, "drop_tool_results")
    assert agent.telemetry.content
    assert agent.limits == Limits(steps=7, tokens=1000, seconds=2.5)
    assert agent.policy == SecurityPolicy(
        allow=("one", "t*"),
        deny=("three",),
        ask=("one",),
        ask_effects=(Effect.UNSAFE,),
        ask_interrupted=False,
    )
    assert len(agent.tools) == 2
    plain = catalog.get("plain").agent
    assert (plain.model, plain.limits, plain.policy) == ("offline:planner", Limits(), SecurityPolicy())


@pytest.mark.parametrize(
    "wanted, count",
    [
        *(('["catalog_tools:one"]', 1), ('["catalog_tools:two"]', 1), ('["catalog_tools:many"]', 2)),
        *(('["catalog_tools:toolset"]', 1), ("[]", 0), ('["catalog_tools:many", "catalog_tools:three"]', 3)),
    ],
)
def test_tools_by_import_path(file: Path, wanted: str, count: int):
    agent = read(file, f"[agents.a]\ntools = {wanted}").get("a").agent
    assert len(agent.tools) == count


def test_the_everyday_tools(file: Path):
    assert len(read(file, '[agents.a]\ntools = ["everyday"]').get("a").agent.tools) > 1


def test_a_file_without_agents_is_an_empty_catalog(file: Path):
    assert read(file, "").names == ()


RULE = '[agents.a]\ntools = ["catalog_tools:pay"]\n[[agents.a.policy.rules]]\n'
ON_PAY = 'tools = ["pay"]\nargument = "to"\n'
WRONG_RULES = [
    ('tools = []\nargument = "to"\none_of = [1]', ".tools", "at least 1"),
    ('tools = ["pay"]\none_of = [1]', ".argument", "required"),
    (ON_PAY, "", "exactly one of paths; hosts"),
    (ON_PAY + 'one_of = [1]\nhosts = ["a.example"]', "", "exactly one of"),
    (ON_PAY + 'hosts = ["*"]', "", "'*' is no host"),
    (ON_PAY + 'hosts = ["a.example"]\nschemes = ["gopher"]', ".schemes.0", "https"),
    (ON_PAY + 'hosts = ["a.example"]\nbase = "x"', "", "base belong to a rule with paths"),
    (ON_PAY + "at_least = 3\nat_most = 2", "", "least"),
    (ON_PAY + "at_most = nan", ".at_most", "finite"),
    (ON_PAY + 'at_most = "3"\notherwise = "panic"', ".otherwise", "deny"),
    (ON_PAY + "one_of = []", "", "list"),
    (ON_PAY + 'one_of = [1]\nwhen = "always"', ".when", "there is no"),
    ('tools = ["pya"]\nargument = "to"\none_of = [1]', ".tools.0", "no tool 'pya'", "it has: pay"),
    ('tools = ["pay"]\nargument = "too.deep"\none_of = [1]', ".argument", "no argument 'too'", "amount, to"),
]


def test_when_a_model_is_left_alone(file: Path):
    assert read(file, "").terms.breaking == CircuitSettings()
    told = read(file, "[circuit]\nfailures = 3\nseconds = 0.5\nmax_seconds = 60")
    assert told.terms.breaking == CircuitSettings(failures=3, seconds=0.5, max_seconds=60)


def test_rules_about_arguments(file: Path):
    catalog = read(
        file,
        """
        [agents.a]
        tools = ["catalog_tools:pay"]

        [[agents.a.policy.rules]]
        tools = ["p*"]
        argument = "amount"
        at_most = 100
        at_most_per_run = 250
        otherwise = "ask"

        [[agents.a.policy.rules]]
        tools = ["pay"]
        argument = "to"
        paths = ["accounts", "/srv/accounts"]
        but_not = ["accounts/closed"]
        base = "accounts"
        optional = true
        reason = "only to our accounts"
        """,
    )
    here = str(file.parent)
    inside = Inside(
        folders=[f"{here}/accounts", "/srv/accounts"],
        but_not=[f"{here}/accounts/closed"],
        base=f"{here}/accounts",
    )
    assert catalog.get("a").agent.policy == SecurityPolicy(
        rules=(
            Rule(
                tools=("p*",),
                argument="amount",
                check=Between(most=100, most_per_run=250),
                otherwise="ask",
            ),
            Rule(tools=("pay",), argument="to", check=inside, optional=True, reason="only to our accounts"),
        )
    )


def test_what_is_private_and_who_is_asked_for_how_long(file: Path):
    catalog = read(
        file,
        """
        [agents.a]
        tools = ["catalog_tools:pay", "catalog_tools:one"]

        [agents.a.policy]
        approval_seconds = inf
        private = ["one"]
        private_input = true
        trusted = ["o*"]
        outside = ["pay"]
        """,
    )
    assert catalog.get("a").agent.policy == SecurityPolicy(
        approval_seconds=None, private=("one",), private_input=True, trusted=("o*",), outside=("pay",)
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("agents = 3", ["agents"]),
        ("[agents.a]\nmodel =", ["not TOML", "value"]),
        ("[agent.a]", ["agent", "there is no"]),
        ('[agents.a]\nmodle = "x"', ["agents.a.modle", "there is no"]),
        ("[agents.a]\nmodel = 3", ["agents.a.model"]),
        ('[agents.a]\nplanning = "cot"', ["agents.a.planning", "native", "react"]),
        ("[agents.a]\npatience = 0", ["agents.a.patience"]),
        ("[circuit]\nfailures = 0", ["circuit.failures"]),
        ("[circuit]\nseconds = 300", ["circuit", "seconds (300)", "max_seconds (240)"]),
        ("[circuit]\nminutes = 1", ["circuit.minutes", "there is no"]),
        ("[agents.a.context]\nwindow = 0", ["agents.a.context.window"]),
        ("[agents.a.context]\nstrategy = 'forget'", ["agents.a.context.strategy"]),
        ("[agents.a]\nbudget = { steps = 0 }", ["agents.a.budget.steps"]),
        ("[agents.a]\nbudget = { seconds = -1.0 }", ["agents.a.budget.seconds"]),
        ("[agents.a]\nbudget = { seconds = nan }", ["agents.a.budget.seconds"]),
        ("[agents.a]\nbudget = { dollars = 3 }", ["agents.a.budget.dollars"]),
        ('[agents.a]\npolicy = { ask_effects = ["harmless"] }', ["agents.a.policy.ask_effects.0"]),
        ("[agents.a]\npolicy = { forbid = [] }", ["agents.a.policy.forbid"]),
        ("[agents.a]\npolicy = { approval_seconds = 0 }", ["agents.a.policy.approval_seconds"]),
        ('[agents.a]\npolicy = { outside = ["mail"] }', ["agents.a.policy.outside.0", "no tool 'mail'"]),
        (
            '[agents.a]\npolicy = { deny = ["on"] }\ntools = ["catalog_tools:one"]',
            ["agents.a.policy.deny.0", "no tool 'on'", "one"],
        ),
        *((RULE + text, [f"agents.a.policy.rules.0{field}", *words]) for text, field, *words in WRONG_RULES),
        ('[agents.a]\ntools = "everyday"', ["agents.a.tools"]),
        ('[agents.a]\ntools = ["nonsense"]', ["agents.a.tools.0", "package.module:name"]),
        ('[agents.a]\ntools = ["everyday", "catalog_tools:"]', ["agents.a.tools.1", "package.module:name"]),
        ('[agents.a]\ntools = ["catalog_nowhere:x"]', ["agents.a.tools.0", "cannot import catalog_nowhere"]),
        ('[agents.a]\ntools = ["catalog_tools:nothing"]', ["agents.a.tools.0", "has no nothing"]),
        ('[agents.a]\ntools = ["catalog_tools:number"]', ["agents.a.tools.0", "neither a tool"]),
        ("[agents.a]\nmodel = 3\n[agents.b]\nplanning = 4", ["agents.a.model", "agents.b.planning"]),
    ],
)
def test_what_is_wrong_is_named(file: Path, text: str, words: list[str]):
    with pytest.raises(ConfigError) as refused:
        read(file, text)
    for word in [*words, str(file)]:
        assert word in str(refused.value)


def test_a_file_that_cannot_be_read(tmp_path: Path):
    for path, word in ((tmp_path / "nowhere.toml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=word) as refused:
            read_catalog(path)
        assert str(path) in str(refused.value)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not TOML"):
        read_catalog(tmp_path / "bytes.toml")


# --- an app ------------------------------------------------------------------------------------------------------

APP = """
from agentkit.agent import Agent
from ops_core.config.catalog import Catalog

agent = Agent("offline:planner", name="one")
agents = [agent, Agent("offline:planner", name="two")]
catalog = Catalog(agents)
number = 3

def make():
    return catalog

def make_list():
    return agents

def make_nothing():
    return None

class Holder:
    catalog = catalog
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "catalog_app.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize(
    "name, names",
    [
        *(("agent", ("one",)), ("agents", ("one", "two")), ("catalog", ("one", "two"))),
        *(("make", ("one", "two")), ("make_list", ("one", "two")), ("Holder.catalog", ("one", "two"))),
    ],
)
def test_an_app_may_be_many_things(app: Path, name: str, names: tuple[str, ...]):
    assert import_catalog(f"catalog_app:{name}", app).names == names


@pytest.mark.parametrize(
    "path, words",
    [
        *(("catalog_app", "package.module:name"), ("catalog_app:", "package.module:name")),
        *(("catalog_app:nothing", "has no nothing"), ("catalog_app:agents.nothing", "has no agents.nothing")),
        *(("catalog_nowhere:x", "cannot import"), ("catalog_app:number", "neither a Catalog")),
        ("catalog_app:make_nothing", "neither a Catalog"),
    ],
)
def test_an_app_that_is_none_is_refused(app: Path, path: str, words: str):
    with pytest.raises(ConfigError, match=words) as refused:
        import_catalog(path, app)
    assert refused.value.field == "app"


@pytest.mark.parametrize("path", [":name", ".relative:name", "..:name"])
def test_a_module_name_that_is_none_is_refused(app: Path, path: str):
    with pytest.raises(ConfigError, match="app"):
        import_object(path, app, "app")


@pytest.mark.parametrize(
    "text, told",
    [
        ("raise ZeroDivisionError", r"ZeroDivisionError at \S+\.py:1$"),
        ("\n\ndef broken(:", r"SyntaxError at \S+\.py:3: invalid syntax"),
        ("if True:\nx = 1", r"IndentationError at \S+\.py:2: expected an indented block"),
        ("import sys; sys.exit(3)", r"SystemExit at \S+\.py:1: 3"),
        ("\nraise RuntimeError('no database:\\npassword=hunter2')", r"RuntimeError at \S+py:2: no database:"),
        (
            "import agentkit as a, ops_core.config.catalog as c\nc.Catalog([a.Agent('x:y', name='ü')])",
            r"an agent cannot be called 'ü'",
        ),
        ("from agentkit import Tool\nTool(len, timeout=-1)", r"tool len: timeout must be positive"),
    ],
    ids=["bare", "syntax", "indentation", "exit", "runtime", "our own", "the library's"],
)
def test_a_module_that_breaks_when_it_is_imported_is_told_with_place_and_text(
    tmp_path: Path, text: str, told: str
):
    name = f"catalog_broken_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(ConfigError, match=f"app: {name} breaks when it is imported: ") as refused:
        import_object(f"{name}:x", tmp_path, "app")
    assert re.search(told, str(refused.value)), refused.value
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_is_put_on_the_path_once(app: Path):
    for _ in range(3):
        import_catalog("catalog_app:agent", app)
    assert sys.path.count(str(app.resolve())) == 1


@pytest.mark.parametrize("name", ["", "a b", "x\u0007y", "-x", "a" * 201])
def test_an_agent_with_an_unusable_name_is_refused(name: str):
    with pytest.raises(ConfigError, match="cannot be called"):
        Catalog([Agent("offline:planner", name=name)])


@pytest.mark.parametrize("model", ["offline", "nope:x", "", "openai:"])
def test_a_model_that_cannot_exist_is_refused_when_it_is_declared(tmp_path: Path, model: str):
    file = tmp_path / "opspawn.toml"
    file.write_text(f'[agents.a]\nmodel = "{model}"\n')
    with pytest.raises(ConfigError, match="agent a: model"):
        read_catalog(file)


def test_a_function_that_cannot_be_a_tool_is_refused_with_its_place(tmp_path: Path):
    file = tmp_path / "opspawn.toml"
    file.write_text('[agents.a]\ntools = ["builtins:print"]\n')
    with pytest.raises(ConfigError, match=r"agents\.a\.tools\.0: builtins:print cannot be a tool"):
        read_catalog(file)


def test_a_tool_that_cannot_be_declared_is_named_with_its_parameter(tmp_path: Path):
    name = f"broken_tool_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(
        "from agentkit import tool\n@tool\ndef send(to: str, by) -> None: ...\n"
    )
    file = tmp_path / "opspawn.toml"
    file.write_text(f'[agents.a]\ntools = ["{name}:send"]\n')
    with pytest.raises(
        ConfigError, match=rf"agents\.a\.tools\.0: {name} breaks.*tool send: parameter by needs"
    ):
        read_catalog(file)


@pytest.mark.parametrize(
    "text",
    ["def make(): raise ValueError('password=hunter2')", "def make(needed): ...", "async def make(): ..."],
)
def test_an_app_that_breaks_when_it_is_called_is_named(tmp_path: Path, text: str):
    name = f"catalog_called_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(ConfigError, match="app: ") as refused:
        import_catalog(f"{name}:make", tmp_path)
    assert "hunter2" not in str(refused.value)


# --- endpoints ---------------------------------------------------------------------------------------------------

LOCAL = """
[endpoints.local]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key_env = "LOCAL_KEY"
headers = {{ X-Team = "search" }}
body = {{ seed = 7 }}
timeout_seconds = 60
{more}
[agents.one]
model = "local:llama3.2:3b"
"""


async def test_an_endpoint_is_declared_beside_the_agents(file: Path, monkeypatch: pytest.MonkeyPatch):
    catalog = read(file, LOCAL.format(more=""))
    declared = catalog.get("one").agent.model
    with pytest.raises(ModelAuthError, match="the endpoint local needs a key: set LOCAL_KEY"):
        async with catalog.opened(declared):
            pass
    monkeypatch.setenv("LOCAL_KEY", "sk-test-0123456789")
    async with catalog.opened(declared) as model:
        assert model.name == "local:llama3.2:3b"


@pytest.mark.parametrize(
    "text, problem",
    [
        ('[endpoints.x]\nkind = "closedai"', "endpoints.x.kind"),
        ('[endpoints.x]\nbase = "http://a"', "endpoints.x.base: "),
        ('[endpoints.x]\nbase_url = "a.b/v1"', "endpoints.x: base_url must begin with http"),
        ('[endpoints.x]\nbase_url = "http://me:secret@a/v1"', "endpoints.x: base_url must hold neither"),
        ('[endpoints.x]\napi_key_env = "sk-secret"', "endpoints.x: api_key_env: the name of an environment"),
        (
            '[endpoints.x]\nheaders = { Authorization = "Bearer secret" }',
            "endpoints.x: headers: Authorization is not",
        ),
        (
            '[endpoints.x]\nheaders = { X-A = "a\\nsecret: 1" }',
            "endpoints.x: headers: the value of X-A holds",
        ),
        ("[endpoints.X]", "endpoints.X: an endpoint cannot be called 'X'"),
        ("[endpoints.offline]", "an endpoint cannot be called 'offline'"),
        ("[endpoints.x]\ntimeout_seconds = 0", "endpoints.x.timeout_seconds"),
        ('[agents.one]\nmodel = "local:x"', "agent one: model: unknown model 'local:x'"),
    ],
)
def test_an_endpoint_that_cannot_be_right_is_refused_when_the_file_is_read(
    file: Path, text: str, problem: str
):
    with pytest.raises(ConfigError) as refused:
        read(file, text)
    assert problem in str(refused.value)
    assert "secret" not in str(refused.value)
