"""The SQLite file: its schema, opening it, copying it while it is in use."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from kimi_gateway.accounts.store import StoreDown

# One entry for each schema version; PRAGMA user_version counts the applied ones.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE accounts (
            id TEXT PRIMARY KEY, name TEXT NOT NULL, unlimited INTEGER NOT NULL, created INTEGER NOT NULL,
            generation INTEGER NOT NULL DEFAULT 0, grants TEXT NOT NULL, spendable INTEGER NOT NULL,
            consumed INTEGER NOT NULL, expired INTEGER NOT NULL, CHECK (spendable >= 0)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE keys (
            id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, account TEXT NOT NULL, name TEXT NOT NULL,
            rpm INTEGER, rph INTEGER, rpd INTEGER, see_balance INTEGER NOT NULL,
            revoked INTEGER NOT NULL DEFAULT 0, created INTEGER NOT NULL,
            minute INTEGER NOT NULL DEFAULT 0, in_minute INTEGER NOT NULL DEFAULT 0,
            hour INTEGER NOT NULL DEFAULT 0, in_hour INTEGER NOT NULL DEFAULT 0,
            day INTEGER NOT NULL DEFAULT 0, in_day INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE leases (
            account TEXT NOT NULL, request TEXT NOT NULL, cost INTEGER NOT NULL, expires INTEGER NOT NULL,
            PRIMARY KEY (account, request)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE usage (
            hour INTEGER NOT NULL, account TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
            requests INTEGER NOT NULL, errors INTEGER NOT NULL, input INTEGER NOT NULL,
            output INTEGER NOT NULL, credits INTEGER NOT NULL, last INTEGER NOT NULL,
            PRIMARY KEY (hour, account, key, model)
        ) WITHOUT ROWID
        """,
    ),
    (
        """
        CREATE TABLE bad_news (
            token TEXT NOT NULL, model TEXT NOT NULL, cause TEXT NOT NULL, until INTEGER NOT NULL,
            PRIMARY KEY (token, model)
        ) WITHOUT ROWID
        """,
    ),
    (
        """
        CREATE TABLE replay (
            id INTEGER PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL, until INTEGER NOT NULL,
            size INTEGER NOT NULL, value BLOB NOT NULL, UNIQUE (account, name)
        )
        """,
        "CREATE INDEX replay_age ON replay (until, size)",
        "CREATE INDEX replay_sizes ON replay (account, until, size)",
    ),
    (
        # The tier that each window began with. Windows that are open at this moment get the highest one.
        "ALTER TABLE keys ADD COLUMN minute_rank INTEGER NOT NULL DEFAULT 3",
        "ALTER TABLE keys ADD COLUMN hour_rank INTEGER NOT NULL DEFAULT 3",
        "ALTER TABLE keys ADD COLUMN day_rank INTEGER NOT NULL DEFAULT 3",
    ),
    (
        "ALTER TABLE keys ADD COLUMN models TEXT NOT NULL DEFAULT ''",  # separated by spaces
        "ALTER TABLE keys ADD COLUMN expires INTEGER NOT NULL DEFAULT 9999999999",
        "ALTER TABLE keys ADD COLUMN note TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE keys ADD COLUMN suspended INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE keys ADD COLUMN old_digest TEXT",
        "ALTER TABLE keys ADD COLUMN old_until INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX keys_old_digest ON keys (old_digest)",
    ),
    (
        """
        CREATE TABLE files (
            account TEXT NOT NULL, id TEXT NOT NULL, token TEXT NOT NULL, kind TEXT NOT NULL,
            created INTEGER NOT NULL, expires INTEGER NOT NULL, state TEXT NOT NULL, upstream TEXT NOT NULL,
            filename TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL, purpose TEXT NOT NULL,
            detail TEXT NOT NULL, PRIMARY KEY (account, id)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX files_due ON files (expires)",
    ),
    (
        "ALTER TABLE keys ADD COLUMN budgets TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE accounts ADD COLUMN budgets TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE leases ADD COLUMN output INTEGER NOT NULL DEFAULT 0",
        """
        CREATE TABLE spent (
            account TEXT NOT NULL, scope TEXT NOT NULL, unit TEXT NOT NULL, period TEXT NOT NULL,
            bucket INTEGER NOT NULL, amount INTEGER NOT NULL,
            PRIMARY KEY (account, scope, unit, period, bucket)
        ) WITHOUT ROWID
        """,
    ),
    ("ALTER TABLE files ADD COLUMN uploaded_as TEXT NOT NULL DEFAULT ''",),
    (
        "ALTER TABLE keys ADD COLUMN in_flight INTEGER",
        "ALTER TABLE keys ADD COLUMN tokens INTEGER",
        "ALTER TABLE keys ADD COLUMN search INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE keys ADD COLUMN files INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE keys ADD COLUMN manages INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE keys ADD COLUMN made_by TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE leases ADD COLUMN key TEXT NOT NULL DEFAULT ''",  # that counts it while it runs
        "ALTER TABLE leases ADD COLUMN maker TEXT NOT NULL DEFAULT ''",
    ),
    (
        """
        CREATE TABLE answers (
            id INTEGER PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL, fingerprint TEXT NOT NULL,
            owner TEXT NOT NULL, until INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0,
            size INTEGER NOT NULL DEFAULT 0, value BLOB, UNIQUE (account, name)
        )
        """,
        "CREATE INDEX answers_sizes ON answers (account, size)",
        "CREATE INDEX answers_age ON answers (until)",
    ),
    (
        *(
            f"ALTER TABLE usage ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0"
            for name in ("cached", "written", "reasoning", "fees", "cost", "saved", "free", "last_cost")
        ),
        """
        CREATE TABLE failures (
            hour INTEGER NOT NULL, account TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
            cause TEXT NOT NULL, errors INTEGER NOT NULL, PRIMARY KEY (hour, account, key, model, cause)
        ) WITHOUT ROWID
        """,
    ),
    (
        """
        CREATE TABLE batches (
            account TEXT NOT NULL, id TEXT NOT NULL, due INTEGER NOT NULL, expires INTEGER NOT NULL,
            record TEXT NOT NULL, PRIMARY KEY (account, id)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX batches_due ON batches (due)",
        "CREATE INDEX batches_expiry ON batches (expires)",
    ),
    ("CREATE TABLE imports (account TEXT PRIMARY KEY, mark TEXT NOT NULL) WITHOUT ROWID",),
    (
        "CREATE INDEX usage_of_account ON usage (account, hour)",
        "CREATE INDEX failures_of_account ON failures (account, hour)",
    ),
    (
        "ALTER TABLE accounts ADD COLUMN invited_by TEXT NOT NULL DEFAULT ''",
        """
        CREATE TABLE funded (
            account TEXT NOT NULL, name TEXT NOT NULL, credits INTEGER NOT NULL, PRIMARY KEY (account, name)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE tallies (name TEXT PRIMARY KEY, count INTEGER NOT NULL, until INTEGER NOT NULL)
        WITHOUT ROWID
        """,
        "CREATE INDEX tallies_until ON tallies (until)",
    ),
    ("ALTER TABLE keys ADD COLUMN operator INTEGER NOT NULL DEFAULT 0",),
    (  # answers whose bytes are kept, the oldest first
        "CREATE INDEX answers_held ON answers (account, until, size) WHERE size > 0",
        "CREATE INDEX answers_held_age ON answers (until, size) WHERE size > 0",
        "DROP INDEX answers_sizes",
    ),
    ("CREATE INDEX keys_of_account ON keys (account, created)",),
)


MOST_PAGES = 4000  # of the log, about 16 MB; then a transaction of the thread copies them first


def connect(path: Path, lock_timeout: float) -> sqlite3.Connection:
    """Create the file, or bring it to this release's schema. Only that waits for a lock."""
    # An existing file is not opened here: closing any descriptor of a database drops SQLite's locks on it in
    # this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    db = sqlite3.connect(path, timeout=lock_timeout, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {MOST_PAGES}")
        _migrate(db)
        db.execute("PRAGMA busy_timeout = 0")
    except BaseException:
        db.close()
        raise
    return db


def connect_beside(path: Path, lock_timeout: float = 0.0) -> sqlite3.Connection:
    """Connect to a file that `connect` has prepared. The connection makes no checkpoints. It is used on one
    thread, and may be closed from another. `lock_timeout` is in seconds; even a reader needs one, because a
    connection that closes locks the file for a moment."""
    db = sqlite3.connect(path, timeout=lock_timeout, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    return db


def _migrate(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")  # of several processes that start at once, one creates the tables
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreDown(f"the file has schema {version}, this release knows {len(MIGRATIONS)}")
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    db.execute("COMMIT")


def copy(path: Path, target: Path, conversations: bool = True) -> None:
    """Write a consistent copy of the database, complete or not at all, while writers continue. Without
    `conversations`, the copy contains no byte of entries kept for later requests."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode 0600
    os.close(handle)
    try:
        # Opened read-only, it could leave an empty log behind, like that of a killed process.
        mode = "rw" if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK) else "ro"
        source = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)
        copied = sqlite3.connect(name)
        with contextlib.closing(source), contextlib.closing(copied):
            source.backup(copied)
            if not conversations:
                for (table,) in copied.execute(KEPT_FOR_LATER).fetchall():
                    copied.execute(f"DELETE FROM {table}")  # noqa: S608 - a table of ours
                copied.commit()
                copied.execute("VACUUM")  # deleted rows would stay in the file's free pages
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


KEPT_FOR_LATER = "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('replay', 'answers')"


class NotOurs(ValueError):
    """A file is not a complete database of this gateway; the text says why."""


TABLES = frozenset(("accounts", "keys", "leases", "usage"))


def checked_copy(file: Path, beside: Path) -> Path:
    """A checked copy of a backup, on disk, in the folder of `beside`, mode 0600. Raises NotOurs."""
    for end in ("-wal", "-journal"):
        if file.with_name(file.name + end).exists():
            raise NotOurs(
                f"{file.name}{end} exists beside it, so it is in use or was left by a process that died"
            )
    handle, name = tempfile.mkstemp(dir=beside.parent, prefix=f".{beside.name}.")  # mode 0600
    os.close(handle)
    copy = Path(name)
    try:
        shutil.copyfile(file, copy)
        try:
            with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as db:
                _check(db)
        except sqlite3.Error as exc:
            raise NotOurs(str(exc)) from exc
        with copy.open("rb") as written:
            os.fsync(written.fileno())
    except BaseException:
        for end in ("", "-wal", "-shm", "-journal"):
            copy.with_name(copy.name + end).unlink(missing_ok=True)
        raise
    return copy


def _check(db: sqlite3.Connection) -> None:
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if not tables >= TABLES or version < 1:
        raise NotOurs("it does not have the gateway's tables")
    if version > len(MIGRATIONS):
        raise NotOurs(f"it is from a newer release (schema {version}, this one knows {len(MIGRATIONS)})")
    found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(3)")]
    if found != ["ok"]:
        raise NotOurs(f"it is damaged: {'; '.join(found)}")
    db.execute("PRAGMA journal_mode = DELETE")  # otherwise a log would be left beside it


def sync_folder(folder: Path) -> None:
    """Flush the folder, so that a new name in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
