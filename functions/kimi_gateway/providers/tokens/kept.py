"""The stored form of upstream tokens, in the file at home and in the secret in the cloud.

A JSON object has a list for each vendor: `{"moonshot": ["sk-…"], "qwen": ["intl=sk-…"]}`. A JSON list, or
tokens separated by commas, are the platform's alone, as older releases wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from kimi_gateway import settings
from kimi_gateway.catalog.models import PLATFORM

Kept = dict[str, tuple[str, ...]]  # by vendor


def parsed(text: object, plain: bool = True) -> Kept:
    """`plain`: tokens separated by commas are read too. Raises ValueError; its text continues "the secret",
    and quotes nothing."""
    if not isinstance(text, str):
        raise ValueError("holds no text")
    if plain and not text.lstrip().startswith(("[", "{")):
        return {PLATFORM: settings.tokens(text.split(","))}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON with lists of tokens") from None
    lists = document if isinstance(document, dict) else {PLATFORM: document}
    if not lists:
        raise ValueError("is not JSON with lists of tokens")
    for each in lists.values():
        if not isinstance(each, list) or not all(isinstance(token, str) for token in each):
            raise ValueError("is not JSON with lists of tokens")
    return {vendor: settings.tokens(each) for vendor, each in lists.items()}


def written(kept: Mapping[str, Sequence[str]]) -> str:
    """A list if only the platform has tokens, so that older releases can read it."""
    lists = {vendor: list(tokens) for vendor, tokens in kept.items() if tokens}
    if lists.keys() <= {PLATFORM}:
        return json.dumps(lists.get(PLATFORM, []))
    return json.dumps(lists)


def secrets(kept: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Everything to hide: each token, with and without the name of its address."""
    for tokens in kept.values():
        for token in tokens:
            yield token
            if rest := token.partition("=")[2]:
                yield rest


def with_base(secret: str, bases: Mapping[str, str]) -> tuple[str, str]:
    """The name of a token's address, and the token. Without `name=` it belongs to the first address."""
    name, found, rest = secret.partition("=")
    if found and rest and name in bases:
        return name, rest
    return next(iter(bases)), secret
