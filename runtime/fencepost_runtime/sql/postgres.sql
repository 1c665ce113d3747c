-- The PostgreSQL backend's statements, by name, in the schema that the connection's search_path names. Times are Unix
-- nanoseconds. Every change runs in one transaction that `begin` opens.

-- name: schema
CREATE TABLE jobs (
    id           text PRIMARY KEY,
    queue        text NOT NULL,
    payload      text NOT NULL,
    state        text NOT NULL CHECK (state IN ('ready', 'leased', 'done', 'dead')),
    available_at bigint NOT NULL,
    enqueued     bigint NOT NULL,
    attempts     bigint NOT NULL DEFAULT 0,
    token        bigint NOT NULL DEFAULT 0,
    expires_at   bigint NOT NULL DEFAULT 0
);
CREATE INDEX jobs_by_state ON jobs (queue, state, available_at, enqueued);
CREATE TABLE effects (
    position   bigint PRIMARY KEY,
    effect_key text NOT NULL,
    job_id     text NOT NULL,
    token      bigint NOT NULL,
    account    text NOT NULL,
    amount     bigint NOT NULL
);
CREATE INDEX effects_by_key ON effects (effect_key);
CREATE TABLE counters (name text PRIMARY KEY, value bigint NOT NULL);
-- Nothing is ever written to it: whoever holds its lock has the turn.
CREATE TABLE turn ();

-- name: begin
-- Read committed, whatever the server's default: each statement sees all that was committed before the turn was taken.
-- The lock of a table costs an idle worker's poll no write, as that of a row would.
BEGIN ISOLATION LEVEL READ COMMITTED;
LOCK TABLE turn IN EXCLUSIVE MODE;

-- name: count
INSERT INTO counters AS known (name, value) VALUES (%(counter)s, 1)
ON CONFLICT (name) DO UPDATE SET value = known.value + 1
RETURNING value;

-- name: add
INSERT INTO jobs (id, queue, payload, state, available_at, enqueued)
VALUES (%(job_id)s, %(queue)s, %(payload)s, 'ready', %(now)s, %(position)s)
ON CONFLICT (id) DO NOTHING;

-- name: oldest_ready
SELECT id
FROM jobs
WHERE queue = %(queue)s AND state = 'ready' AND available_at <= %(now)s
ORDER BY available_at, enqueued
LIMIT 1
FOR UPDATE SKIP LOCKED;

-- name: job
SELECT payload FROM jobs WHERE id = %(job_id)s;

-- name: row
SELECT id, state, available_at, attempts, token, expires_at FROM jobs WHERE id = %(job_id)s FOR UPDATE;

-- name: save
UPDATE jobs
SET state = %(state)s, available_at = %(available_at)s, attempts = %(attempts)s, token = %(token)s,
    expires_at = %(expires_at)s
WHERE id = %(id)s;

-- name: is_applied
SELECT 1 FROM effects WHERE effect_key = %(effect_key)s LIMIT 1 FOR UPDATE;

-- name: add_effect
INSERT INTO effects (position, effect_key, job_id, token, account, amount)
VALUES (%(position)s, %(effect_key)s, %(job_id)s, %(token)s, %(account)s, %(amount)s);

-- name: expired
SELECT id, token
FROM jobs
WHERE queue = %(queue)s AND state = 'leased' AND expires_at <= %(now)s
ORDER BY expires_at, enqueued;

-- name: held
SELECT id, state FROM jobs WHERE queue = %(queue)s AND state <> 'done' ORDER BY enqueued;

-- name: balances
SELECT account, sum(amount)::bigint FROM effects GROUP BY account ORDER BY account COLLATE "C";
