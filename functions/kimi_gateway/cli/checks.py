"""The checks of `doctor`. A check changes nothing and says how to fix what it finds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kimi_gateway import settings
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.cli import vendors
from kimi_gateway.cli.entry import Failed, program
from kimi_gateway.cli.home import Home
from kimi_gateway.cli.target import Target
from kimi_gateway.cli.upstream import in_use, recorded_outages, unasked, verdicts, why
from kimi_gateway.dataclass import dataclass
from kimi_gateway.providers.tokens.outages import MEND, WAIT
from kimi_gateway.settings import Settings, SettingsFault
from kimi_gateway.storage.sqlite.opening import STORE_NAME

if TYPE_CHECKING:
    from kimi_gateway.accounts.values import Account
    from kimi_gateway.providers.tokens.outages import Outage


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: Literal["ok", "warn", "FAIL"]
    detail: str
    fix: str | None = None


def at_home() -> Iterator[Check]:
    try:
        values = settings.read()
    except SettingsFault as exc:
        for fault in exc.faults:
            yield Check("settings", "FAIL", fault, "correct or unset the variable")
        return
    yield Check("settings", "ok", "all are valid")
    yield _models(values)
    folder = _folder(values.data)
    yield folder
    if folder.status == "FAIL" and not os.access(values.data, os.R_OK | os.X_OK):
        return  # nothing in it can be looked at
    yield from _store(values.data / STORE_NAME)
    home = Home(values)
    yield from _tokens_file(home)
    yield from tokens(home)
    yield from files(home)


def files(chosen: Target) -> Iterator[Check]:
    """A store that cannot be read has its own check."""
    from kimi_gateway.cli.files import due

    if not chosen.begun():
        return
    with contextlib.suppress(StoreDown, OSError, sqlite3.Error):
        if count := asyncio.run(due(chosen)):
            detail = f"{count} wait to be deleted at the provider"
            yield Check("files", "warn", detail, f"{program()} files sweep")


def _models(values: Settings) -> Check:
    from kimi_gateway.catalog import catalog

    try:
        known = catalog.of_settings(values)
    except catalog.CatalogFault as exc:
        return Check("models", "FAIL", str(exc), "correct the setting, or the file of KIMI_GATEWAY_MODELS")
    origin = f"including those of {values.models}" if values.models else "built in"
    return Check("models", "ok", f"{len(known.rows)} models, {origin}")


def _folder(folder: Path) -> Check:
    try:
        there = folder.exists()
    except OSError as exc:
        fix = "set KIMI_GATEWAY_DATA to a folder that you can write, or run this as the user of the server"
        return Check("data folder", "FAIL", f"{folder} cannot be reached: {exc.strerror}", fix)
    if not there:
        return Check("data folder", "warn", f"not started yet: {folder} does not exist", f"{program()} serve")
    if not folder.is_dir():
        return Check("data folder", "FAIL", f"{folder} is not a folder", "set KIMI_GATEWAY_DATA to a folder")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        fix = f"make the folder writable: chmod u+rwx {shlex.quote(str(folder))}, or set KIMI_GATEWAY_DATA"
        return Check("data folder", "FAIL", f"{folder} cannot be written", fix)
    return _mode("data folder", folder, 0o700)


def _mode(name: str, path: Path, wanted: int) -> Check:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~wanted:
        return Check(
            name,
            "FAIL",
            f"other users have access to {path} (mode {mode:04o})",
            f"chmod {wanted:o} {shlex.quote(str(path))}",
        )
    return Check(name, "ok", f"{path} (mode {mode:04o})")


def _store(path: Path) -> Iterator[Check]:
    if not path.exists():
        yield Check("store", "warn", "not started yet: there is no store", f"{program()} serve")
        return
    try:
        damage = _quick_check(path)
        accounts = [] if damage else asyncio.run(_accounts(path))
    except StoreDown as exc:
        yield Check("store", "FAIL", f"{path}: {exc}", store_fix(path, str(exc)))
        return
    except sqlite3.Error as exc:
        damage = str(exc)
    if damage:
        yield Check("store", "FAIL", f"{path}: {damage}", store_fix(path, damage))
        return
    yield _mode("store", path, 0o600)
    yield keys_of(accounts)


def store_fix(path: Path, fault: str) -> str:
    """How to fix a fault, chosen by SQLite's own text."""
    folder = shlex.quote(str(path.parent))
    if "readonly" in fault or "unable to open" in fault:
        return f"make the folder writable: chmod u+rwx {folder}; chmod u+rw {shlex.quote(str(path))}"
    if "locked" in fault:
        return "another program holds it locked: end that program, then try again"
    if "schema" in fault:
        return "install the release that wrote it, or a newer one"
    if "full" in fault:
        return "free space on the disk"
    return f"stop the server, then put a backup in its place: {program()} restore FILE"


def keys_of(accounts: list[Account]) -> Check:
    active = sum(not key.revoked for account in accounts for key in account.keys)
    if active:
        return Check("keys", "ok", f"{active} active")
    return Check("keys", "warn", "no key is active, so nobody can send requests", f"{program()} keys create")


def _quick_check(path: Path) -> str:
    """The damage that SQLite finds in the file; empty if there is none."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db:
        found = [str(row[0]) for row in db.execute("PRAGMA quick_check(3)")]
    return "" if found == ["ok"] else "; ".join(found)


async def _accounts(path: Path) -> list[Account]:
    from kimi_gateway.storage.sqlite.store import SqliteStore

    store = SqliteStore(path)
    try:
        return await store.accounts(int(time.time()))
    finally:
        await store.close()


def _tokens_file(home: Home) -> Iterator[Check]:
    with contextlib.suppress(OSError):  # reported where the tokens are read
        if home.tokens_file.exists():
            yield _mode("tokens file", home.tokens_file, 0o600)


def tokens(chosen: Target) -> Iterator[Check]:
    try:
        using = in_use(chosen)
        bad = _remembered(chosen)
    except (Failed, OSError) as exc:
        fix = f"empty the {chosen.kept_in}, then {program()} tokens add"
        yield Check(f"tokens {chosen.kept_in}", "FAIL", str(exc), fix)
        return
    if using.server is not None:
        yield Check("server", "ok", f"runs on {using.server.address} (pid {using.server.pid})")
    if not using.ids:
        yield Check("tokens", "warn", "none: the built-in demo answers", f"{program()} tokens add")
    for verdict in verdicts(chosen.settings, using.tokens) + unasked(using, bad):
        detail = f"{verdict.id} from the {using.source}: {verdict.detail}"
        if verdict.live or verdict.unasked:
            yield Check("token", "ok", detail)
        elif verdict.live is False:
            yield Check("token", "FAIL", detail, "replace it; tokens of .ai and .cn differ (KIMI_BASE_URL)")
        else:
            fix = f"check the platform's console, and whether {chosen.settings.base_url} can be reached"
            yield Check("token", "warn" if verdict.passing else "FAIL", detail, fix)
    with contextlib.suppress(Failed):  # of the models file, which has its own check
        yield from _vendors(chosen)
    for id, known in bad.items():
        for each in known if id in using.ids else ():
            fix = MEND.get(each.cause, WAIT)
            yield Check("outage", "warn", f"{id}: {why(each)}", fix)


def _vendors(chosen: Target) -> Iterator[Check]:
    """The tokens of other vendors, and the age of their rows."""
    for name in vendors.unknown(chosen):
        fix = "correct the name; docs/vendors.md has the built-in ones, KIMI_GATEWAY_MODELS adds others"
        yield Check("vendor", "FAIL", f"{name} has tokens and is not a vendor", fix)
    for vendor, source, tokens in vendors.used(chosen):
        for verdict in vendors.verdicts(chosen, vendor, tokens):
            detail = f"{vendor.id}: {verdict.id} from the {source}: {verdict.detail}"
            good = bool(verdict.live or verdict.unasked)
            fix = f"check the vendor's console ({vendor.docs}), and the address of the token"
            yield Check("vendor", "ok" if good else "FAIL", detail, None if good else fix)
        for note in vendors.web_notes(chosen, vendor):
            yield Check("vendor", "warn", note, "the official platform is the supported way")
        if age := vendors.too_old(vendor):
            detail = f"{vendor.id}: its facts were checked {age} days ago ({vendor.checked})"
            yield Check("vendor", "warn", detail, f"compare its row with {vendor.docs}")


def _remembered(chosen: Target) -> dict[str, list[Outage]]:
    """Known outages; none if the store cannot be read, which has its own check."""
    try:
        return recorded_outages(chosen)
    except (StoreDown, OSError, sqlite3.Error):
        return {}
