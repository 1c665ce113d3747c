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
due AS (
    SELECT
        lease.*,
        horizon.ended AS horizon,
        greatest(lease.until, renewed.until) AS expires_at,
        greatest(lease.until, renewed.until) + greatest(lease.until - lease."at", 5_000_000_000) AS due_at
    FROM leases AS lease
    JOIN horizon USING (schedule)
    LEFT JOIN renewed USING (schedule, execution_id)
    WHERE horizon.ended > due_at
        -- Of a lease without a job nobody knows what became of it.
        AND lease.job_id IS NOT NULL
),
late AS (
    SELECT due.*
    FROM due
    ANTI JOIN events AS release
        ON due.schedule = release.schedule
        AND due.execution_id = release.execution_id
        AND release.event IN ('ack', 'fail', 'dead_letter', 'retry', 'reclaim')
        AND release.outcome = 'ok'
        AND release."at" <= due.due_at
),
released AS (
    SELECT
        schedule, execution_id,
        arg_min(moment, "at") FILTER (happened) AS moment,
        bool_or(happened IS NULL) AS unanswered
    FROM steps
    SEMI JOIN late USING (schedule, execution_id)
    WHERE event IN ('ack', 'fail', 'dead_letter', 'retry', 'reclaim')
    GROUP BY schedule, execution_id
),
ended_by_others AS (
    -- A newer lease of the job ends this one, whoever took it back; so does whatever another execution settled.
    SELECT late.schedule, late.span_id, arg_min(other.moment, other."at") AS moment
    FROM late
    JOIN moments AS other
        ON late.schedule = other.schedule
        AND late.job_id = other.job_id
        AND coalesce(late.execution_id <> other.execution_id, TRUE)
    WHERE other.outcome = 'ok'
        AND other.event IN ('lease', 'ack', 'fail', 'dead_letter', 'retry', 'reclaim')
        AND precedes(late.moment, other.moment)
    GROUP BY late.schedule, late.span_id
),
ends AS (
    SELECT
        late.*,
        coalesce(released.moment, ended_by_others.moment) AS ended,
        coalesce(released.unanswered, FALSE) AS unanswered,
        holdings.state,
        holdings.at > late.due_at AS counted,
        holdings.span_id AS inventory_span_id
    FROM late
    LEFT JOIN released USING (schedule, execution_id)
    LEFT JOIN ended_by_others USING (schedule, span_id)
    LEFT JOIN holdings USING (schedule, job_id)
    WHERE coalesce((ended_by_others.moment).at > late.due_at, TRUE)
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
            WHEN ended IS NOT NULL
                AND (ended).position IS NULL
                AND NOT coalesce((ended).host = (moment).host OR (ended).producer = (moment).producer, FALSE)
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
