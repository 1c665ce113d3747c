-- scope: fencepost.runtime
-- attributes: messaging.message.id VARCHAR, messaging.destination.name VARCHAR,
--   job.worker.id VARCHAR, job.attempt BIGINT, job.lease.token BIGINT, job.lease.expires_at BIGINT,
--   job.effect.key VARCHAR, job.effect.index BIGINT, job.effect.applied BOOLEAN, job.effects.total BIGINT,
--   job.outcome VARCHAR, job.reason VARCHAR, job.settle.accepted BOOLEAN, job.retry.delay_ms BIGINT,
--   job.intent VARCHAR, job.order_key VARCHAR, job.signal VARCHAR, error.type VARCHAR,
--   job.transaction.position BIGINT, job.transaction.time_unix_nano BIGINT,
--   job.inventory.ids VARCHAR[], job.inventory.states VARCHAR[]
-- resource: host.name VARCHAR

-- A span's name begins with the word for its event; a settlement's outcome says which one it is.
WITH named AS (
    SELECT
        *,
        CASE split_part(name, ' ', 1)
            WHEN 'send' THEN 'enqueue'
            WHEN 'receive' THEN 'lease'
            WHEN 'process' THEN 'run'
            WHEN 'settle' THEN CASE "job.outcome"
                WHEN 'failed' THEN 'fail'
                WHEN 'dead_letter' THEN 'dead_letter'
                ELSE 'ack'
            END
            WHEN 'renew' THEN 'renew'
            WHEN 'write' THEN 'write'
            WHEN 'retry' THEN 'retry'
            WHEN 'scan' THEN 'scan'
            WHEN 'reclaim' THEN 'reclaim'
            WHEN 'inventory' THEN 'inventory'
            WHEN 'crash' THEN 'crash'
            WHEN 'pause' THEN 'pause'
            WHEN 'resume' THEN 'resume'
            WHEN 'commit' THEN 'commit'
            WHEN 'rollback' THEN 'rollback'
        END AS event,
        duration_time_unix_nano IS NOT NULL AS ended,
        -- TRY: numbers that overflow are hostile, and null.
        TRY(start_time_unix_nano + duration_time_unix_nano) AS ended_at,
        -- A transaction's time is of this clock only if it lies within the span.
        CASE
            WHEN "job.transaction.time_unix_nano" BETWEEN start_time_unix_nano AND coalesce(ended_at, "job.transaction.time_unix_nano")
                THEN "job.transaction.time_unix_nano"
        END AS transaction_at,
        coalesce(transaction_at, start_time_unix_nano) AS decided_at
    FROM staged
),
told AS (
    SELECT
        event,
        "messaging.message.id" AS job_id,
        "job.attempt" AS attempt,
        "job.worker.id" AS worker_id,
        "messaging.destination.name" AS queue,
        decided_at AS at,
        CASE event
            WHEN 'run' THEN ended_at
            WHEN 'lease' THEN "job.lease.expires_at"
            WHEN 'renew' THEN "job.lease.expires_at"
            WHEN 'retry' THEN TRY(decided_at + "job.retry.delay_ms" * 1_000_000)
        END AS until,
        CASE
            WHEN transaction_at IS NULL AND event <> 'run' AND ended_at > decided_at
                THEN ended_at
        END AS decided_by,
        "job.transaction.position" AS position,
        "job.lease.token" AS token,
        "job.effect.key" AS effect_key,
        "job.effect.index" AS effect_index,
        "job.effects.total" AS effect_total,
        CASE
            -- Never ended, or the reply was lost: nobody knows.
            WHEN NOT ended THEN 'unknown'
            -- A word that is none of ours may mean anything, and so may none.
            WHEN event = 'run' THEN CASE WHEN "job.outcome" IN ('ok', 'failed') THEN "job.outcome" ELSE 'unknown' END
            WHEN event = 'ack' AND coalesce("job.outcome" NOT IN ('ok', 'unknown'), TRUE) THEN 'unknown'
            -- Only these two errors say that nothing was applied; after any other it may have been all the same.
            WHEN "error.type" IN ('BackendError', 'RolledBack', 'UnknownJob') THEN 'failed'
            WHEN "error.type" IS NOT NULL THEN 'unknown'
            -- A list that cannot be read whole, each job with its state, does not say what the queue does not hold.
            WHEN event = 'inventory' THEN CASE
                WHEN len("job.inventory.ids") = len("job.inventory.states")
                    AND len(list_filter("job.inventory.ids", lambda id: id IS NULL)) = 0 THEN 'ok'
                ELSE 'unknown'
            END
            WHEN event IN ('lease', 'scan', 'crash', 'pause', 'resume', 'commit', 'rollback') THEN 'ok'
            WHEN coalesce("job.effect.applied", "job.settle.accepted") THEN 'ok'
            WHEN NOT coalesce("job.effect.applied", "job.settle.accepted") THEN 'failed'
            ELSE 'unknown'
        END AS outcome,
        CASE
            WHEN event = 'ack' AND "job.outcome" = 'unknown' AND outcome <> 'failed' THEN 'early'
            ELSE coalesce(
                "job.reason", "job.signal", "error.type",
                CASE WHEN event IN ('run', 'ack') AND "job.outcome" NOT IN ('ok', 'failed', 'unknown') THEN "job.outcome" END
            )
        END AS reason,
        "job.intent" AS intent,
        "job.order_key" AS order_key,
        "host.name" AS host,
        producer,
        producer_seq,
        producer_end_seq,
        trace_id,
        span_id,
        "job.inventory.ids" AS held_ids,
        "job.inventory.states" AS held_states
    FROM named
    WHERE event IS NOT NULL
),
-- An inventory is one span: it becomes one event for itself and one for each job that it lists.
listed AS (
    SELECT * REPLACE (unnest(held_ids) AS job_id, unnest(held_states) AS reason)
    FROM told
    WHERE event = 'inventory'
)
SELECT * EXCLUDE (held_ids, held_states) FROM told
UNION ALL BY NAME
SELECT * EXCLUDE (held_ids, held_states) FROM listed WHERE job_id IS NOT NULL
