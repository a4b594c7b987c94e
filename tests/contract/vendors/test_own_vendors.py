"""Vendors of the operator's own, and what no vendor may see of another."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.live import LiveGateway
from support.vendors import with_vendors
from upstream import ScriptedUpstream, Sse, Status, chat_events
from upstream.vendors import MODELS, WAYS, answering, sent_to, token_of


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


def test_no_vendor_ever_sees_anothers_token(
    up: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever fails: the tokens of a vendor, and of each of its addresses, go there and nowhere else."""
    with with_vendors(up, tmp_path_factory.mktemp("canary")) as gateway:
        key = gateway.key()
        for broken in (False, True):
            for vendor in WAYS:
                if broken:
                    answering(up, vendor, Status(401, {"error": {"message": "no"}}))
            for model in (*MODELS.values(), "spark/4.0Ultra", "spark/x1", "kimi-k3", "nobody/x"):
                gateway.chat(key, model=model)
            with gateway.client(key) as client:
                client.get("/v1/models")
                client.get("/v1/users/me/balance")
        places = [(vendor, base) for vendor, ways in WAYS.items() for base in ways.bases]
        secrets = {token_of(*place): place for place in places}
        assert {request.path.split("/")[1] for request in up.requests} > set(WAYS)
        for request in up.requests:
            whole = json.dumps(request.headers) + request.raw.decode()
            _, vendor, base, *_ = request.path.split("/")
            found = [secret for secret in (*secrets, "sk-upstream-1") if secret in whole]
            assert [secrets.get(secret, ("v1",))[0] for secret in found] == [vendor]
            assert all(secrets[secret][1] == base for secret in found if secret in secrets)
        assert not [secret for secret in secrets if secret in gateway.log.getvalue()]


EIGHTH = {
    "id": "lan", "bases": "http://127.0.0.1:{port}/lan/box/v1", "tokens": "none", "reasoning": "think-tags",
    "known": [
        {"id": "tiny", "window": 8192, "output": 1024, "price": {"input": 1, "cached": 1, "output": 2}}
    ],
}  # fmt: skip


def test_an_eighth_vendor_is_one_row_without_code(
    up: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    row = {**EIGHTH, "bases": str(EIGHTH["bases"]).format(port=up.port)}
    text = "<think>hm</think>\n\nyes"
    up.at("/lan/box/v1/chat/completions", Sse(chat_events(text, pieces=9)))
    up.at("/lan/box/v1/models", Status(200, {"data": [{"id": "tiny"}, {"id": "other"}]}))
    document = {"vendors": [row], "aliases": {"house": "lan/tiny"}}
    folder = tmp_path_factory.mktemp("eighth")
    (folder / "m.json").write_text(json.dumps(document))
    with LiveGateway(folder, up.url, models=folder / "m.json") as gateway:
        key = gateway.key()
        for model in ("lan/tiny", "house", "lan/other"):
            message = gateway.chat(key, model=model).json()["choices"][0]["message"]
            assert (message["content"], message["reasoning_content"]) == ("yes", "hm")
        sent = sent_to(up, "lan")[-1]
        assert "authorization" not in sent.headers
        assert sent.body["model"] == "other"
        with gateway.client(key) as client:
            listed = [entry["id"] for entry in client.get("/v1/models").json()["data"]]
        assert {"lan/tiny", "lan/other"} <= set(listed)
        long = [{"role": "user", "content": "word " * 20_000}]
        too_long = gateway.chat(key, model="lan/tiny", messages=long)
        assert too_long.json()["error"]["code"] == "context_length_exceeded"
        costs = [line.get("cost_usd") for line in gateway.lines("request") if line.get("provider") == "lan"]
        assert costs[0] is not None
        assert costs[-1] is None, "its price is not known"
