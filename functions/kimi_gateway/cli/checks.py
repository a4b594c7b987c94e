"""What the doctor looks at. A check changes nothing, and says how to mend what it finds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kimi_gateway import settings
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.cli.entry import Failed
from kimi_gateway.cli.place import Home, Place, deployed
from kimi_gateway.cli.upstream import bad_news, in_use, verdicts, why
from kimi_gateway.home import STORE_NAME
from kimi_gateway.settings import Settings, SettingsFault

if TYPE_CHECKING:
    from kimi_gateway.accounts.values import Account


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: Literal["ok", "warn", "FAIL"]
    detail: str
    fix: str | None = None


def all_checks() -> Iterator[Check]:
    stack = deployed()
    if stack is not None:
        from kimi_gateway.cli import stack_checks

        yield from stack_checks.all_checks(stack)
        return
    try:
        values = settings.read()
    except SettingsFault as exc:
        for fault in exc.faults:
            yield Check("settings", "FAIL", fault, "correct or unset the variable")
        return
    yield Check("settings", "ok", "all can be read")
    yield _models(values)
    yield _folder(values.data)
    yield from _store(values.data / STORE_NAME)
    yield from _tokens_file(Home(values))
    yield from tokens(Home(values))


def _models(values: Settings) -> Check:
    from kimi_gateway.catalog import catalog

    try:
        known = catalog.load(values.models)
    except catalog.CatalogFault as exc:
        return Check("models", "FAIL", str(exc), "correct the file that KIMI_GATEWAY_MODELS names")
    origin = f"with those of {values.models}" if values.models else "built in"
    return Check("models", "ok", f"{len(known.rows)} models, {origin}")


def _folder(folder: Path) -> Check:
    if not folder.exists():
        return Check("data folder", "warn", f"not started yet: {folder} is not there", "kimi-gateway serve")
    if not folder.is_dir():
        return Check("data folder", "FAIL", f"{folder} is not a folder", "set KIMI_GATEWAY_DATA to another")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check(
            "data folder", "FAIL", f"{folder} cannot be written", "make it yours, or set KIMI_GATEWAY_DATA"
        )
    return _mode("data folder", folder, 0o700)


def _mode(name: str, path: Path, wanted: int) -> Check:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~wanted:
        return Check(
            name,
            "FAIL",
            f"{path} is open to others (mode {mode:04o})",
            f"chmod {wanted:o} {shlex.quote(str(path))}",
        )
    return Check(name, "ok", f"{path} (mode {mode:04o})")


def _store(path: Path) -> Iterator[Check]:
    if not path.exists():
        yield Check("store", "warn", "not started yet: there is no store", "kimi-gateway serve")
        return
    try:
        damage = _quick_check(path)
        accounts = [] if damage else asyncio.run(_accounts(path))
    except StoreDown as exc:
        yield Check(
            "store", "FAIL", f"{path}: {exc}", "end what holds it, or install the release that wrote it"
        )
        return
    except sqlite3.Error as exc:
        damage = str(exc)
    if damage:
        yield Check("store", "FAIL", f"{path}: {damage}", "stop the server and put a backup in its place")
        return
    yield _mode("store", path, 0o600)
    yield keys_of(accounts)


def keys_of(accounts: list[Account]) -> Check:
    active = sum(not key.revoked for account in accounts for key in account.keys)
    if active:
        return Check("keys", "ok", f"{active} active")
    return Check("keys", "warn", "no key is active, so nobody can call", "kimi-gateway keys create")


def _quick_check(path: Path) -> str:
    """What SQLite finds wrong in the file, else nothing."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db:
        found = [str(row[0]) for row in db.execute("PRAGMA quick_check(3)")]
    return "" if found == ["ok"] else "; ".join(found)


async def _accounts(path: Path) -> list[Account]:
    from kimi_gateway.accounts.sqlite import SqliteStore

    store = SqliteStore(path)
    try:
        return await store.accounts(int(time.time()))
    finally:
        await store.close()


def _tokens_file(here: Home) -> Iterator[Check]:
    with contextlib.suppress(OSError):  # told of where they are read
        if here.tokens_file.exists():
            yield _mode("tokens file", here.tokens_file, 0o600)


def tokens(here: Place) -> Iterator[Check]:
    try:
        source, used = in_use(here)
    except (Failed, OSError) as exc:
        fix = f"empty the {here.kept_in}, then kimi-gateway tokens add"
        yield Check(f"tokens {here.kept_in}", "FAIL", str(exc), fix)
        return
    if not used:
        yield Check("tokens", "warn", "none: the built-in demo answers", "kimi-gateway tokens add")
    for verdict in verdicts(here.settings, used):
        detail = f"{verdict.id} from the {source}: {verdict.detail}"
        if verdict.live:
            yield Check("token", "ok", detail)
        elif verdict.live is False:
            yield Check("token", "FAIL", detail, "replace it; keys of .ai and .cn differ (KIMI_BASE_URL)")
        else:
            fix = f"look at the platform's console, and whether {here.settings.base_url} can be reached"
            yield Check("token", "warn" if verdict.passing else "FAIL", detail, fix)
    yield from _tokens_out(here, {token.id for token in used})


MEND = {
    "authentication": "replace it: kimi-gateway tokens add, then tokens remove",
    "quota": "recharge the account at the platform's console",
    "permission": "look at the platform's console what the account may use",
    "model": "look at the platform's console what the account may use",
}


def _tokens_out(here: Place, used: set[str]) -> Iterator[Check]:
    """A store that cannot be read was told of already."""
    with contextlib.suppress(StoreDown, OSError, sqlite3.Error):
        for id, known in bad_news(here).items():
            for bad in known if id in used else ():
                fix = MEND.get(bad.cause, "nothing; with another account there is another token to step in")
                yield Check("token out", "warn", f"{id}: {why(bad)}", fix)
