"""Settings: each is read, each fault is named, all of them at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.settings import FIELDS, HOSTS, Settings, SettingsFault, read

HOME = {"HOME": "/home/me", "AWS_REGION": "eu-central-1"}
FILE = str(Path(__file__))
ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:kimi/tokens-AbCdEf"

GOOD: list[tuple[str, str, Any]] = [
    ("MOONSHOT_API_KEY", "sk-a", ("sk-a",)),
    ("MOONSHOT_API_KEY", " sk-a, sk-b ,,sk-a,", ("sk-a", "sk-b")),
    ("KIMI_BASE_URL", "ai", HOSTS["ai"]),
    ("KIMI_BASE_URL", " CN ", HOSTS["cn"]),
    ("KIMI_BASE_URL", "http://127.0.0.1:9/v1/", "http://127.0.0.1:9/v1"),
    ("KIMI_BASE_URL", "https://[::1]:9/v1", "https://[::1]:9/v1"),
    ("KIMI_GATEWAY_TABLE", "kimi-gateway_Table.1", "kimi-gateway_Table.1"),
    ("KIMI_GATEWAY_UPLOADS", "kimi-uploads.1", "kimi-uploads.1"),
    ("KIMI_GATEWAY_SECRET", "kimi/tokens", "kimi/tokens"),
    ("KIMI_GATEWAY_SECRET", ARN, ARN),
    ("KIMI_GATEWAY_DATA", "/srv/kimi", Path("/srv/kimi")),
    ("KIMI_GATEWAY_DATA", " /srv/kimi ", Path("/srv/kimi")),
    ("KIMI_GATEWAY_MODELS", FILE, Path(FILE)),
    ("KIMI_GATEWAY_SIGNUP_CREDITS", "0", 0),
    ("KIMI_GATEWAY_PACKAGES", "trial=50/1m, big=90000", (("trial", 50, 1), ("big", 90_000, None))),
    ("KIMI_GATEWAY_REGISTER", "invite", "invite"),
    ("KIMI_GATEWAY_REGISTER_DAILY", "0", 0),
    ("KIMI_GATEWAY_ACCOUNT_KEYS", "5", 5),
    ("KIMI_GATEWAY_PAYMENT_SECRET", "x" * 16 + " , " + "y" * 16, ("x" * 16, "y" * 16)),
    ("KIMI_GATEWAY_KEEP_USAGE", "30", 30),
    ("KIMI_GATEWAY_ALIASES", "claude-*=kimi-k3, a=b,", (("claude-*", "kimi-k3"), ("a", "b"))),
    ("KIMI_GATEWAY_ADMIN", "off", False),
    ("KIMI_GATEWAY_LOG_FORMAT", "TEXT", "text"),
    ("KIMI_GATEWAY_ALERTS_URL", "https://hooks.example/x", "https://hooks.example/x"),
    ("KIMI_GATEWAY_ALERTS_URL", "log", "log"),
    ("KIMI_GATEWAY_ALERTS_BALANCE", "9.5", 9.5),
    ("KIMI_GATEWAY_BODY_LIMIT", "2048", 2048),
    ("KIMI_GATEWAY_BODY_MEMORY", "1048576", 1048576),
    ("KIMI_GATEWAY_ANSWER_LIMIT", "1048576", 1048576),
    ("KIMI_GATEWAY_EVENT_LIMIT", " 2048 ", 2048),
    ("KIMI_GATEWAY_CONNECT_TIMEOUT", "1.5", 1.5),
    ("KIMI_GATEWAY_FIRST_BYTE_TIMEOUT", "10", 10.0),
    ("KIMI_GATEWAY_IDLE_TIMEOUT", "10", 10.0),
    ("KIMI_GATEWAY_MAX_REQUEST", "0", 0.0),
    ("KIMI_GATEWAY_MAX_REQUEST", "600", 600.0),
    ("KIMI_GATEWAY_LEASE", "60", 60.0),
    ("KIMI_GATEWAY_PING_INTERVAL", "0.5", 0.5),
    ("KIMI_GATEWAY_DRAIN", "0", 0.0),
    ("KIMI_GATEWAY_TOKEN_CONCURRENCY", "1", 1),
    ("KIMI_GATEWAY_CONNECTIONS", "1", 1),
    ("KIMI_GATEWAY_KEYLESS_PER_ADDRESS", "100000", 100_000),
    ("KIMI_GATEWAY_TRUSTED_PROXIES", " 10.0.0.0/8, ::1,", ("10.0.0.0/8", "::1")),
    ("KIMI_GATEWAY_ACCOUNT_CONCURRENCY", "4", 4),
    ("KIMI_GATEWAY_ACCOUNT_FILES", "0", 0),
    ("KIMI_GATEWAY_ACCOUNT_FILE_BYTES", "1000000", 1_000_000),
    ("KIMI_GATEWAY_PASSTHROUGH", "on", True),
    ("KIMI_GATEWAY_PASSTHROUGH_LIMITS", " 1, 0,30", (1, None, 30)),
    ("KIMI_GATEWAY_KEEP_CONVERSATIONS", "off", False),
    ("KIMI_GATEWAY_SEARCH", "off", False),
    ("KIMI_GATEWAY_FALLBACKS", "a = b, c; d*=e", {"a": ("b", "c"), "d*": ("e",)}),
    ("KIMI_GATEWAY_SEARCH_ROUNDS", "3", 3),
    ("KIMI_GATEWAY_SEARCH_SECONDS", "2.5", 2.5),
    ("KIMI_GATEWAY_BATCHES", "off", ()),
    ("KIMI_GATEWAY_BATCHES", "On", ("*",)),
    ("KIMI_GATEWAY_BATCHES", "key_a1, key_b2,", ("key_a1", "key_b2")),
    ("KIMI_GATEWAY_KEEP_TEXTS", "0", 0),
    ("KIMI_GATEWAY_FETCH_ALLOWED", "Wiki.lan:8080, 10.0.0.7:80", ("wiki.lan:8080", "10.0.0.7:80")),
    ("KIMI_GATEWAY_ATTACHMENT_LIMIT", "1048576", 2**20),
    ("KIMI_GATEWAY_EXTRACT", "Local", "local"),
    ("KIMI_GATEWAY_KEEP_CONVERSATIONS", "On", True),
    ("KIMI_GATEWAY_ANTHROPIC", "native", "native"),
    ("KIMI_GATEWAY_METRICS", "[::1]:9464", ("::1", 9464)),
    ("KIMI_GATEWAY_KIMI_WEB", "on", True),
    ("KIMI_GATEWAY_UNPRICED", "Allow", "allow"),
    ("KIMI_GATEWAY_LOG_LEVEL", "DEBUG", "debug"),
]
BAD: list[tuple[str, str]] = [
    ("MOONSHOT_API_KEY", "sk a"),
    ("MOONSHOT_API_KEY", "sk-a,sk-é"),
    ("MOONSHOT_API_KEY", "sk-\x07"),
    ("KIMI_BASE_URL", "moon"),
    ("KIMI_BASE_URL", "ftp://a.test"),
    ("KIMI_BASE_URL", "https://"),
    ("KIMI_BASE_URL", "https://me:pw@a.test/v1"),
    ("KIMI_BASE_URL", "https://a.test/v1?x=1"),
    ("KIMI_BASE_URL", "https://a.test/v1#x"),
    ("KIMI_BASE_URL", "https://a.test:99999/v1"),
    ("KIMI_BASE_URL", "https://a.test:http/v1"),
    ("KIMI_BASE_URL", "https://[::1/v1"),
    ("KIMI_BASE_URL", "https://a test/v1"),
    ("KIMI_GATEWAY_TABLE", "a table"),
    ("KIMI_GATEWAY_UPLOADS", "Not/A.Bucket"),
    ("KIMI_GATEWAY_TABLE", "ab"),
    ("KIMI_GATEWAY_SECRET", "not a name"),
    ("KIMI_GATEWAY_MODELS", "/no/such/file.json"),
    ("KIMI_GATEWAY_MODELS", "/"),
    ("KIMI_GATEWAY_SIGNUP_CREDITS", "-1"),
    ("KIMI_GATEWAY_KEEP_USAGE", "0"),
    ("KIMI_GATEWAY_ALIASES", "claude-*"),
    ("KIMI_GATEWAY_ALIASES", "=kimi-k3"),
    ("KIMI_GATEWAY_ALIASES", "a=b=c"),
    ("KIMI_GATEWAY_ALIASES", "a=b,a=c"),
    ("KIMI_GATEWAY_LOG_FORMAT", "xml"),
    ("KIMI_GATEWAY_ALERTS_URL", "ftp://hooks.example"),
    ("KIMI_GATEWAY_ALERTS_BALANCE", "-1"),
    ("KIMI_GATEWAY_ADMIN", "maybe"),
    ("KIMI_GATEWAY_SIGNUP_CREDITS", "1.5"),
    ("KIMI_GATEWAY_PACKAGES", "trial"),
    ("KIMI_GATEWAY_PACKAGES", "trial=0"),
    ("KIMI_GATEWAY_PACKAGES", "trial=5/0m"),
    ("KIMI_GATEWAY_PACKAGES", "Trial=5/1y"),
    ("KIMI_GATEWAY_REGISTER", "yes"),
    ("KIMI_GATEWAY_REGISTER_DAILY", "-1"),
    ("KIMI_GATEWAY_ACCOUNT_KEYS", "0"),
    ("KIMI_GATEWAY_PAYMENT_SECRET", "short"),
    ("KIMI_GATEWAY_BODY_LIMIT", "100"),
    ("KIMI_GATEWAY_BODY_MEMORY", "64 MiB"),
    ("KIMI_GATEWAY_ANSWER_LIMIT", "64 MiB"),
    ("KIMI_GATEWAY_EVENT_LIMIT", "8 MiB"),
    ("KIMI_GATEWAY_CONNECT_TIMEOUT", "0"),
    ("KIMI_GATEWAY_FIRST_BYTE_TIMEOUT", "nan"),
    ("KIMI_GATEWAY_IDLE_TIMEOUT", "inf"),
    ("KIMI_GATEWAY_MAX_REQUEST", "-5"),
    ("KIMI_GATEWAY_MAX_REQUEST", "601"),  # longer than the lease that the others leave
    ("KIMI_GATEWAY_LEASE", "0"),
    ("KIMI_GATEWAY_PING_INTERVAL", "often"),
    ("KIMI_GATEWAY_DRAIN", "1e9"),
    ("KIMI_GATEWAY_TOKEN_CONCURRENCY", "-1"),
    ("KIMI_GATEWAY_CONNECTIONS", "0"),
    ("KIMI_GATEWAY_KEYLESS_PER_ADDRESS", "0"),
    ("KIMI_GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8 192.0.2.1"),
    ("KIMI_GATEWAY_TRUSTED_PROXIES", "proxy.test"),
    ("KIMI_GATEWAY_ACCOUNT_CONCURRENCY", "3"),
    ("KIMI_GATEWAY_ACCOUNT_FILES", "501"),
    ("KIMI_GATEWAY_ACCOUNT_FILE_BYTES", "1 GB"),
    ("KIMI_GATEWAY_PASSTHROUGH", "sk-own"),
    ("KIMI_GATEWAY_PASSTHROUGH_LIMITS", "20"),
    ("KIMI_GATEWAY_PASSTHROUGH_LIMITS", "20,-1,5"),
    ("KIMI_GATEWAY_KEEP_CONVERSATIONS", "maybe"),
    ("KIMI_GATEWAY_SEARCH", "maybe"),
    ("KIMI_GATEWAY_FALLBACKS", "a=b;c"),
    ("KIMI_GATEWAY_FALLBACKS", "a=b;a=c"),
    ("KIMI_GATEWAY_PACKAGES", "trial=50,trial=60"),
    ("KIMI_GATEWAY_SEARCH_ROUNDS", "11"),
    ("KIMI_GATEWAY_SEARCH_SECONDS", "0"),
    ("KIMI_GATEWAY_BATCHES", "all"),
    ("KIMI_GATEWAY_BATCHES", "key_a,*"),
    ("KIMI_GATEWAY_KEEP_TEXTS", "-1"),
    ("KIMI_GATEWAY_FETCH_ALLOWED", "wiki.lan"),
    ("KIMI_GATEWAY_ATTACHMENT_LIMIT", "104857601"),
    ("KIMI_GATEWAY_EXTRACT", "both"),
    ("KIMI_GATEWAY_ANTHROPIC", "claude"),
    ("KIMI_GATEWAY_METRICS", "9464"),
    ("KIMI_GATEWAY_METRICS", "127.0.0.1:99999"),
    ("KIMI_GATEWAY_KIMI_WEB", "older"),
    ("KIMI_GATEWAY_UNPRICED", "free"),
    ("KIMI_GATEWAY_LOG_LEVEL", "loud"),
]


def test_the_tables_here_name_every_setting() -> None:
    assert {name for name, *_ in GOOD} == FIELDS.keys()
    assert {name for name, _ in BAD} == FIELDS.keys() - {"KIMI_GATEWAY_DATA"}  # any text is a path


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_a_setting_is_read(name: str, text: str, value: Any) -> None:
    settings = read(HOME | {name: text})
    assert getattr(settings, FIELDS[name][0]) == value


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_fault_names_its_setting(name: str, text: str) -> None:
    with pytest.raises(SettingsFault) as caught:
        read(HOME | {name: text})
    (fault,) = caught.value.faults
    assert name in fault


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_setting_is_its_default(name: str, text: str) -> None:
    assert read(HOME | {name: text}) == read(HOME)


def test_the_defaults_hold_without_any() -> None:
    assert read(HOME) == Settings(data=Path("/home/me/.local/share/kimi-gateway"))
    assert read(HOME | {"XDG_DATA_HOME": "/data"}).data == Path("/data/kimi-gateway")


@pytest.mark.parametrize("name", ["KIMI_GATEWAY_TABLE", "KIMI_GATEWAY_SECRET", "KIMI_GATEWAY_UPLOADS"])
def test_what_is_kept_in_the_cloud_needs_a_region(name: str) -> None:
    with pytest.raises(SettingsFault, match="AWS_REGION"):
        read({"HOME": "/home/me", name: "kimi-gateway"})
    assert read({"HOME": "/home/me", name: "kimi-gateway", "AWS_DEFAULT_REGION": "eu-central-1"})


def test_every_fault_is_named_at_once() -> None:
    last = {name: text for name, text in BAD}
    unknown = {"KIMI_GATEWAY_IDLE_TIMEOUTS": "5", "KIMI_GATEWAY_ZZZ": "1"}
    with pytest.raises(SettingsFault) as caught:
        read(HOME | last | unknown)
    named = {fault.split(" ")[0] for fault in caught.value.faults}
    assert named >= last.keys() - {"KIMI_GATEWAY_MAX_REQUEST"} | unknown.keys()
    assert str(caught.value).count("\n") == len(caught.value.faults) - 1


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("KIMI_GATEWAY_IDLE_TIMEOUTS", "KIMI_GATEWAY_IDLE_TIMEOUT"),
        ("KIMI_GATEWAY_MODEL", "KIMI_GATEWAY_MODELS"),
        ("KIMI_GATEWAY_LOGLEVEL", "KIMI_GATEWAY_LOG_LEVEL"),
    ],
)
def test_an_unknown_setting_is_a_fault_with_a_suggestion(name: str, near: str) -> None:
    with pytest.raises(SettingsFault) as caught:
        read(HOME | {name: ""})
    assert caught.value.faults == [f"{name} is not a setting; did you mean {near}?"]


def test_other_programs_variables_are_none_of_its_business() -> None:
    assert read(HOME | {"KIMI_API_KEY": "x", "PATH": "/bin", "kimi_gateway_drain": "x"}) == read(HOME)


def test_a_request_may_not_outlive_its_lease() -> None:
    assert read(HOME | {"KIMI_GATEWAY_MAX_REQUEST": "900", "KIMI_GATEWAY_LEASE": "960"}).lease == 960
    with pytest.raises(SettingsFault, match="KIMI_GATEWAY_LEASE"):
        read(HOME | {"KIMI_GATEWAY_MAX_REQUEST": "900", "KIMI_GATEWAY_LEASE": "959"})


def test_a_fault_never_repeats_a_token() -> None:
    with pytest.raises(SettingsFault) as caught:
        read(HOME | {"MOONSHOT_API_KEY": "sk-secret one", "KIMI_BASE_URL": "https://u:sk-secret@a.test"})
    assert "secret" not in str(caught.value)


def test_tokens_of_vendors_are_read_by_the_vendors_name() -> None:
    settings = read(HOME | {"KIMI_GATEWAY_TOKENS_MY_BOX": "tok-1, us=tok-2,tok-1"})
    assert settings.vendor_tokens == {"my-box": ("tok-1", "us=tok-2")}
    assert "tok-1" not in repr(settings)
    for name, text in (("KIMI_GATEWAY_TOKENS_MOONSHOT", "sk-1"), ("KIMI_GATEWAY_TOKENS_", "a"),
                       ("KIMI_GATEWAY_TOKENS_QWEN", "two words")):  # fmt: skip
        with pytest.raises(SettingsFault, match=name):
            read(HOME | {name: text})


@pytest.mark.parametrize(
    "form", ["ftp://{}", "http://host:{}", "http://[{}", "https:///{}", "{}", "http://a b/{}"]
)
def test_no_fault_quotes_the_address_of_the_webhook(form: str) -> None:
    secret = "obviously-a-fake-secret"
    with pytest.raises(SettingsFault) as caught:
        read(HOME | {"KIMI_GATEWAY_ALERTS_URL": form.format(secret)})
    assert secret not in str(caught.value)
