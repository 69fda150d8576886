"""The tables in a store's file.

answers:  every answer, good or rejected; seq says which of several stands.
attempts: a first answer that could not be used, kept before the repair round is paid for.
ledger:   what was spent, by run, model and dimension.
claims:   questions that some run has in flight, with the money set aside for them.
batches:  batches at the endpoint, written down before they are made there.
inbox:    answers of batches that came and are not settled yet.
"""

ANSWERS = """
CREATE TABLE answers (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    post_id TEXT NOT NULL,
    task TEXT NOT NULL,
    dimension TEXT NOT NULL,
    template TEXT NOT NULL,
    source TEXT NOT NULL,
    model TEXT NOT NULL,
    raw TEXT NOT NULL,
    value TEXT,
    status TEXT NOT NULL CHECK (status IN ('ok', 'rejected')),
    reason TEXT,
    created TEXT NOT NULL,
    variant INTEGER NOT NULL DEFAULT 0,
    UNIQUE (key, post_id)
);
CREATE INDEX answers_by_post ON answers (task, post_id, dimension);
"""
# From version 1 of the layout, which had this table alone.
VARIANTS = "ALTER TABLE answers ADD COLUMN variant INTEGER NOT NULL DEFAULT 0"
BESIDE = """
CREATE TABLE attempts (
    key TEXT PRIMARY KEY,
    raw TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE ledger (
    run TEXT NOT NULL,
    source TEXT NOT NULL,
    model TEXT NOT NULL,
    dimension TEXT NOT NULL,
    requests INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost REAL NOT NULL,
    unconfirmed REAL NOT NULL,
    PRIMARY KEY (run, source, model, dimension)
) WITHOUT ROWID;
CREATE TABLE claims (
    key TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    expires REAL NOT NULL,
    cost REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE batches (
    name TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    model TEXT NOT NULL,
    input_file TEXT,
    remote TEXT,
    created REAL NOT NULL
);
CREATE TABLE inbox (
    key TEXT PRIMARY KEY,
    status INTEGER NOT NULL,
    body TEXT NOT NULL,
    batch TEXT NOT NULL
)"""
