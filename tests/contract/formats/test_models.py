"""Models: the list, the operator's own rows and aliases, and ids that only the upstream knows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.error_shape import openai_error
from support.live import LiveGateway
from upstream import ScriptedUpstream, Status
from upstream.kimi import WINDOWS, error

SEED = {"id", "object", "created", "owned_by", "permission", "root", "parent"}
OWN = {
    "models": [
        {"id": "small", "like": "kimi-k2.6", "max_output": 100, "thinks": False},
        {"id": "plain", "upstream": "kimi-next"},
    ],
    "aliases": {"claude-*": "kimi-k3", "gpt-4o": "small"},
}


@pytest.fixture(scope="module")
def module_upstream() -> Iterator[ScriptedUpstream]:
    """It has a model that the table lacks."""
    with ScriptedUpstream(strict=False) as upstream:
        upstream.models.append("kimi-next")
        yield upstream


@pytest.fixture(scope="module")
def gateway(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "models.json").write_text(json.dumps(OWN))
    with LiveGateway(folder, module_upstream.url, models=folder / "models.json") as gateway:
        yield gateway


def test_each_entry_has_the_members_of_the_contract(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    with gateway.client(gateway.key(1)) as client:
        body = client.get("/v1/models").json()
    assert body["object"] == "list"
    entries = {entry["id"]: entry for entry in body["data"]}
    assert len(entries) == len(body["data"])
    assert {"kimi", "kimi-k2", "kimi-k2-0905", "small", "plain", "kimi-next", *WINDOWS} <= entries.keys()
    for entry in entries.values():
        assert entry.keys() >= SEED
        assert (entry["object"], entry["permission"], entry["parent"]) == ("model", [], None)
        assert type(entry["created"]) is int
        assert entry["context_length"] > 0
    for id, window in {"kimi-k2": 128_000, "kimi-k2-0905": 256_000}.items():
        assert entries[id]["created"] == 1735785600
        assert entries[id]["owned_by"] == "moonshot-ai"
        assert (entries[id]["context_length"], entries[id]["max_output_tokens"]) == (window, 8192)
    assert entries["kimi-k3"]["supports_image_in"] is True


def test_entries_say_how_reasoning_is_chosen_and_what_a_token_costs(
    gateway: LiveGateway, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with gateway.client(gateway.key(1)) as client:
        entries = {entry["id"]: entry for entry in client.get("/v1/models").json()["data"]}
    controls = {"kimi-k3": "effort", "kimi-k2.6": "switch", "kimi-k2.7-code": "always", "plain": None}
    assert {id: entries[id]["reasoning_control"] for id in controls} == controls
    k3 = {"prompt": "0.000003", "completion": "0.000015", "input_cache_read": "0.0000003", "currency": "USD"}
    assert entries["kimi-k3"]["pricing"] == k3
    assert entries["small"]["pricing"] == entries["kimi-k2.6"]["pricing"]  # a row of the operator's
    assert entries["plain"]["pricing"] is None
    with LiveGateway(tmp_path) as demo, demo.client(demo.key()) as client:
        free = {"prompt": "0", "completion": "0", "input_cache_read": "0", "currency": "USD"}
        assert client.get("/v1/models/kimi-k3").json()["pricing"] == free


@pytest.mark.parametrize("name", ["kimi-k2", "small", "kimi-next", "claude-opus-9", "kimi-k3[1m]"])
def test_one_model_is_shown_under_the_name_asked_for(
    gateway: LiveGateway, upstream: ScriptedUpstream, name: str
) -> None:
    with gateway.client(gateway.key()) as client:
        entry = client.get(f"/v1/models/{name}").json()
    assert entry["id"] == name
    assert entry.keys() >= SEED


@pytest.mark.parametrize(("name", "status"), [("gpt-4", 404), ("0123456789abcdefghij", 400), ("a/b/c", 404)])
def test_no_model_is_made_up(
    gateway: LiveGateway, upstream: ScriptedUpstream, name: str, status: int
) -> None:
    with gateway.client(gateway.key()) as client:
        answer = client.get(f"/v1/models/{name}")
    assert answer.status_code == status
    assert openai_error(answer.json())["param"] == "model"


def test_an_alias_of_the_operator_runs_and_is_echoed(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    answer = gateway.chat(gateway.key(), model="claude-opus-4-1", thinking={"type": "disabled"})
    assert answer.json()["model"] == "claude-opus-4-1"
    sent = upstream.chats[0].body
    assert (sent["model"], sent["reasoning_effort"]) == ("kimi-k3", "low")


def test_a_row_like_another_has_its_rules_and_its_own_values(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    answer = gateway.chat(gateway.key(), model="gpt-4o", max_tokens=5000, temperature=0.3)
    assert answer.json()["model"] == "gpt-4o"
    assert answer.headers["x-param-ignored"] == "temperature, max_tokens"
    sent = upstream.chats[0].body
    assert (sent["model"], sent["max_completion_tokens"]) == ("kimi-k2.6", 100)
    assert sent["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize("name", ["kimi-next", "plain"])
def test_a_model_without_rules_gets_what_the_client_says(
    gateway: LiveGateway, upstream: ScriptedUpstream, name: str
) -> None:
    body = {"temperature": 0.3, "top_p": 0.5, "thinking": {"type": "disabled"}, "reasoning_effort": "medium"}
    answer = gateway.chat(gateway.key(), model=name, max_tokens=77, **body)
    assert answer.json()["model"] == name
    assert "x-param-ignored" not in answer.headers
    sent = upstream.chats[0].body
    assert {field: sent[field] for field in body} == body
    assert (sent["model"], sent["max_completion_tokens"]) == ("kimi-next", 77)


def test_a_model_that_only_the_client_believes_in_is_404_whoever_says_so(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.always(
        Status(404, error("resource_not_found_error", "Not found the model or Permission denied"))
    )
    key = gateway.key(5)
    live = gateway.chat(key, model="kimi-next")
    assert (live.status_code, openai_error(live.json())["code"]) == (404, "model_not_found")
    ours = gateway.chat(key, model="kimi-k3")
    assert (ours.status_code, openai_error(ours.json())["code"]) == (503, "service_unavailable")
    assert gateway.account(key).credits == 5


def test_the_list_is_whole_without_the_upstream(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, LiveGateway(tmp_path, upstream.url) as gateway:
        upstream.at("/v1/models", Status(500))
        with gateway.client(gateway.key()) as client:
            entries = client.get("/v1/models").json()["data"]
        assert {entry["id"] for entry in entries} >= {"kimi", "kimi-k2", *WINDOWS}
        assert gateway.chat(gateway.key(), model="nobody").status_code == 404


def test_tools_of_a_model_without_rules_stay_as_they_are_but_for_their_names(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    schema = {"type": "string", "format": "date", "$ref": "https://a.test/b.json"}
    tools = [{"type": "function", "function": {"name": name, "parameters": schema}} for name in ("a", "b.c")]
    choice = {"type": "function", "function": {"name": "b.c"}}
    answer = gateway.chat(gateway.key(), model="kimi-next", tools=tools, tool_choice=choice)
    assert answer.status_code == 200, answer.text
    sent = upstream.chats[0].body
    assert [tool["function"]["parameters"] for tool in sent["tools"]] == [schema, schema]
    assert sent["tools"][0] == tools[0]
    assert sent["tool_choice"]["function"]["name"] == sent["tools"][1]["function"]["name"]
    assert sent["tool_choice"]["function"]["name"].startswith("b_c_")
    assert [message["role"] for message in sent["messages"]] == ["user"]


def test_the_list_is_anthropics_page_as_well(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    with gateway.client(gateway.key(0)) as client:
        body = client.get("/v1/models", params={"limit": 2, "after_id": "kimi"}).json()
        one = client.get("/v1/models/kimi-k2.6").json()
    ids = [entry["id"] for entry in body["data"]]
    assert (body["has_more"], body["first_id"], body["last_id"]) == (False, ids[0], ids[-1])
    for entry in (*body["data"], one):
        assert entry["type"] == "model"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["created_at"])
        assert entry["display_name"]
        assert entry["max_input_tokens"] == entry["context_length"]
        assert 0 < entry["max_tokens"] <= max(entry["max_input_tokens"], entry.get("max_output_tokens", 0))
    assert (one["display_name"], one["max_tokens"]) == ("Kimi K2.6", one["max_output_tokens"])
