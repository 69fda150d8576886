"""The tables beside the answers in a store's file.

attempts: a first answer that could not be used, kept before the repair round is paid for.
ledger:   what was spent, by run, model and dimension.
claims:   questions that some run has in flight, with the money set aside for them.
batches:  batches at the endpoint, written down before they are made there.
inbox:    answers of batches that came and are not settled yet.
"""

TABLES = """
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
