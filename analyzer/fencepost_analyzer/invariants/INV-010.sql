-- id: INV-010
-- title: no stuck lease
-- severity: high
-- principle: P4
-- polarity: -
-- needs: lease.until
-- claim: Every lease is settled, renewed or taken back by its expiry plus a grace of one lease length, 5 s at least.
WITH renewed AS (
    SELECT schedule, execution_id, max(until) AS until
    FROM events
    WHERE event = 'renew'
        AND outcome = 'ok'
    GROUP BY schedule, execution_id
),
released AS (
    SELECT
        schedule, execution_id,
        arg_min(moment, "at") FILTER (happened) AS moment,
        bool_or(happened IS NULL) AS unanswered
    FROM steps
    WHERE event IN ('ack', 'fail', 'dead_letter', 'retry', 'reclaim')
    GROUP BY schedule, execution_id
),
due AS (
    SELECT
        lease.*,
        released.moment AS released,
        coalesce(released.unanswered, FALSE) AS unanswered,
        greatest(lease.until, renewed.until) AS expires_at,
        greatest(lease.until, renewed.until) + greatest(lease.until - lease.at, 5_000_000_000) AS due_at
    FROM leases AS lease
    LEFT JOIN renewed USING (schedule, execution_id)
    LEFT JOIN released USING (schedule, execution_id)
),
late AS (
    SELECT due.*, horizon.ended AS horizon
    FROM due
    JOIN horizon USING (schedule)
    WHERE horizon.ended > due.due_at
        AND coalesce((due.released).at > due.due_at, TRUE)
),
next AS (
    -- A newer lease of the job ends this one, whoever took it back.
    SELECT late.schedule, late.span_id, arg_min(rival.moment, rival.at) AS moment
    FROM late
    JOIN leases AS rival
        ON late.schedule = rival.schedule
        AND late.job_id = rival.job_id
        AND late.span_id <> rival.span_id
        AND coalesce(late.token < rival.token, late.at < rival.at)
    GROUP BY late.schedule, late.span_id
),
ends AS (
    SELECT
        late.*,
        coalesce(late.released, next.moment) AS ended,
        holdings.state,
        holdings.at > late.due_at AS counted,
        holdings.span_id AS inventory_span_id
    FROM late
    LEFT JOIN next
        ON late.schedule = next.schedule
        AND late.span_id = next.span_id
    LEFT JOIN holdings
        ON late.schedule = holdings.schedule
        AND late.job_id = holdings.job_id
    WHERE coalesce((next.moment).at > late.due_at, TRUE)
),
judged AS (
    SELECT
        *,
        CASE
            -- The settlement got no answer, but the queue let go: it must have arrived.
            WHEN ended IS NULL AND unanswered AND counted AND state IS DISTINCT FROM 'leased' THEN 'holds'
            WHEN ended IS NULL AND unanswered AND NOT coalesce(counted, FALSE)
                THEN 'its settlement got no answer'
            WHEN ended IS NULL AND counted AND state IS DISTINCT FROM 'leased'
                THEN 'the queue let go of it at some time that was not recorded'
            WHEN (ended).position IS NULL AND (ended).host IS DISTINCT FROM host
                THEN 'it was ended late by the clock of another host'
        END AS doubt
    FROM ends
)
SELECT
    schedule,
    job_id,
    "at",
    [span_id] AS span_ids,
    CASE WHEN doubt IS NULL THEN 'violated' ELSE 'unknown' END AS verdict,
    "at" AS absent_since,
    coalesce((ended).at, horizon) AS absent_until,
    CASE
        WHEN doubt IS NOT NULL THEN printf('The lease of job %s by %s ran out and may be stuck: %s.',
            job_id, actor(worker_id, attempt), doubt)
        WHEN ended IS NULL THEN printf('The lease of job %s by %s is stuck: it ran out and %s later it was neither settled, renewed nor taken back.',
            job_id, actor(worker_id, attempt), how_long(horizon - expires_at))
        ELSE printf('The lease of job %s by %s was stuck for %s after it had run out.',
            job_id, actor(worker_id, attempt), how_long((ended).at - expires_at))
    END AS sentence
FROM judged
WHERE doubt IS DISTINCT FROM 'holds'
