-- The SQLite backend's statements, by name. Times are Unix nanoseconds. Every change runs in BEGIN IMMEDIATE.

-- name: schema
CREATE TABLE IF NOT EXISTS jobs (
    id           TEXT PRIMARY KEY,
    queue        TEXT NOT NULL,
    payload      TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('ready', 'leased', 'done', 'dead')),
    available_at INTEGER NOT NULL,
    enqueued     INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    token        INTEGER NOT NULL DEFAULT 0,
    expires_at   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (queue, state, available_at, enqueued);
CREATE TABLE IF NOT EXISTS effects (
    position   INTEGER PRIMARY KEY,
    effect_key TEXT NOT NULL,
    job_id     TEXT NOT NULL,
    token      INTEGER NOT NULL,
    account    TEXT NOT NULL,
    amount     INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS effects_by_key ON effects (effect_key);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;

-- name: count
INSERT INTO counters (name, value) VALUES (:counter, 1)
ON CONFLICT (name) DO UPDATE SET value = value + 1
RETURNING value;

-- name: add
INSERT INTO jobs (id, queue, payload, state, available_at, enqueued)
VALUES (:job_id, :queue, :payload, 'ready', :now, :position)
ON CONFLICT (id) DO NOTHING;

-- name: oldest_ready
SELECT id
FROM jobs
WHERE queue = :queue AND state = 'ready' AND available_at <= :now
ORDER BY available_at, enqueued
LIMIT 1;

-- name: job
SELECT payload FROM jobs WHERE id = :job_id;

-- name: row
SELECT id, state, available_at, attempts, token, expires_at FROM jobs WHERE id = :job_id;

-- name: save
UPDATE jobs
SET state = :state, available_at = :available_at, attempts = :attempts, token = :token, expires_at = :expires_at
WHERE id = :id;

-- name: is_applied
SELECT 1 FROM effects WHERE effect_key = :effect_key LIMIT 1;

-- name: add_effect
INSERT INTO effects (position, effect_key, job_id, token, account, amount)
VALUES (:position, :effect_key, :job_id, :token, :account, :amount);

-- name: expired
SELECT id, token
FROM jobs
WHERE queue = :queue AND state = 'leased' AND expires_at <= :now
ORDER BY expires_at, enqueued;

-- name: held
SELECT id, state FROM jobs WHERE queue = :queue AND state <> 'done' ORDER BY enqueued;

-- name: balances
SELECT account, sum(amount) FROM effects GROUP BY account ORDER BY account;
