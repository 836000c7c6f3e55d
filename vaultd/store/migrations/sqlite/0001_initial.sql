-- Everything that a vault needs.  Blobs named `sealed`, `secret` and `wrapped` are ciphertext; the rest is readable and bound
-- to them as associated data.  All times are microseconds since the Unix epoch.

-- Sealed key material.  `secure_delete` zeroes what is deleted, but not the copies that SQLite leaves in a page's gap when it
-- moves rows between pages (splits, merges).  So rows here never move: they are appended, never deleted, and overwritten only
-- with as many bytes.  A vacant row is zeros, and waits for material of its size.
CREATE TABLE secrets (
    id INTEGER PRIMARY KEY,
    size INTEGER NOT NULL CHECK (size = length(secret)),
    vacant INTEGER NOT NULL CHECK (vacant IN (0, 1)),
    secret BLOB NOT NULL
) STRICT;

CREATE INDEX secrets_vacant ON secrets (size) WHERE vacant = 1;

-- One row per resource and version, keyed as the engine names them.
CREATE TABLE records (
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 0),
    uid BLOB NOT NULL CHECK (length(uid) = 16),
    state TEXT NOT NULL,
    due_at INTEGER,
    revision INTEGER NOT NULL CHECK (revision > 0),
    term INTEGER NOT NULL CHECK (term >= 0),
    sealed BLOB NOT NULL,
    secret_id INTEGER REFERENCES secrets (id),
    PRIMARY KEY (kind, scope, id, version)
) STRICT, WITHOUT ROWID;

-- The scheduler's list; most rows are never due.
CREATE INDEX records_due ON records (due_at) WHERE due_at IS NOT NULL;

-- Re-sealing under a new term takes batches of the old ones; without this each batch would read the whole table.
CREATE INDEX records_term ON records (term);

-- The feed that caches, watchers and other processes follow.
CREATE TABLE changes (
    revision INTEGER NOT NULL CHECK (revision > 0),
    seq INTEGER NOT NULL CHECK (seq >= 0),
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 0),
    event TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (revision, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE digests (
    scope TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL CHECK (revision >= 0),
    term INTEGER NOT NULL CHECK (term >= 0),
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE key_ring (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    root_ref TEXT NOT NULL,
    generation INTEGER NOT NULL CHECK (generation >= 0),
    wrapped BLOB NOT NULL
) STRICT;

CREATE TABLE replays (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    request_hash BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    revision INTEGER NOT NULL CHECK (revision >= 0),
    term INTEGER NOT NULL CHECK (term >= 0),
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX replays_expiry ON replays (expires_at);

CREATE TABLE key_usage (
    uid BLOB NOT NULL CHECK (length(uid) = 16),
    version INTEGER NOT NULL CHECK (version >= 0),
    messages INTEGER NOT NULL CHECK (messages >= 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    last_use_at INTEGER NOT NULL,
    PRIMARY KEY (uid, version)
) STRICT, WITHOUT ROWID;

-- The newest committed revision.
CREATE TABLE meta (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL CHECK (revision >= 0)
) STRICT;

INSERT INTO meta (one, revision) VALUES (1, 0);
