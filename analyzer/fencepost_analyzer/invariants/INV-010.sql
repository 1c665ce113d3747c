-- id: INV-010
-- title: no stuck lease
-- severity: high
-- principle: P4
-- polarity: -
-- needs: lease.until
-- claim: Every lease is settled, renewed or taken back by its expiry plus a grace of one lease length, 5 s at least.
WITH renewed AS (
    -- `unsure`: nobody knows whether it was renewed, or until when.
    SELECT schedule, execution_id, max(until) FILTER (happened) AS until, bool_or(happened IS NULL OR until IS NULL) AS unsure
    FROM steps
    WHERE event = 'renew'
        AND happened IS DISTINCT FROM FALSE
    GROUP BY schedule, execution_id
),
due AS (
    SELECT
        lease.*,
        horizon.ended AS horizon,
        coalesce(renewed.unsure, FALSE) AS unsure,
        greatest(lease.until, renewed.until) AS expires_at,
        greatest(lease.until, renewed.until) + greatest(lease.until - lease."at", 5_000_000_000) AS due_at
    FROM leases AS lease
    JOIN horizon USING (schedule)
    LEFT JOIN renewed USING (schedule, execution_id)
    -- One that does not say when it runs out is due once nothing else tells its end.
    WHERE coalesce(horizon.ended > due_at, TRUE)
        -- Of a lease without a job nobody knows what became of it.
        AND lease.job_id IS NOT NULL
),
late AS (
    -- Not released in time for sure: how long a lease lasted only one clock can tell.
    SELECT due.*
    FROM due
    ANTI JOIN (
        FROM moments
        WHERE event IN ('ack', 'fail', 'dead_letter', 'retry', 'reclaim')
            AND outcome = 'ok'
    ) AS release
        ON due.schedule = release.schedule
        AND due.execution_id = release.execution_id
        AND (due.due_at IS NULL OR in_time(due.moment, release.moment, due.due_at))
),
released AS (
    SELECT
        schedule, execution_id,
        arg_min(moment, "at") FILTER (happened) AS moment,
        arg_min(event, "at") FILTER (happened) AS event,
        bool_or(happened IS NULL) AS unanswered
    FROM steps
    SEMI JOIN late USING (schedule, execution_id)
    WHERE event IN ('ack', 'fail', 'dead_letter', 'retry', 'reclaim')
    GROUP BY schedule, execution_id
),
ended_by_others AS (
    -- A newer lease of the job ends this one, whoever took it back; so does whatever another execution settled.
    SELECT
        late.schedule, late.span_id,
        arg_min(other.moment, other."at") AS moment,
        arg_min(other.event, other."at") AS event,
        bool_or(late.due_at IS NULL OR in_time(late.moment, other.moment, late.due_at)) AS in_time
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
        CASE WHEN released.moment IS NULL THEN ended_by_others.event ELSE released.event END AS ended_by,
        coalesce(released.unanswered, FALSE) AS unanswered,
        holdings.state,
        holdings."at" > late.due_at AND one_clock(late.moment, holdings.moment) AS counted,
        holdings.span_id AS inventory_span_id
    FROM late
    LEFT JOIN released USING (schedule, execution_id)
    LEFT JOIN ended_by_others USING (schedule, span_id)
    LEFT JOIN holdings USING (schedule, job_id)
    WHERE NOT coalesce(ended_by_others.in_time, FALSE)
        -- Nor where an inventory in time shows that the queue had let go of it: what got no answer had arrived.
        AND NOT coalesce(
            precedes(late.moment, holdings.moment)
            AND in_time(late.moment, holdings.moment, late.due_at)
            AND (holdings.state IN ('ready', 'dead') OR (holdings.state IS NULL AND released.unanswered)),
            FALSE
        )
),
seen AS (
    -- The queue lists it as leased, or a reclaimer looks at what has run out and leaves it.
    SELECT DISTINCT ends.schedule, ends.span_id
    FROM ends
    JOIN moments AS look
        ON ends.schedule = look.schedule
        AND look.at > ends.due_at
        AND one_clock(ends.moment, look.moment)
        AND coalesce((look.moment).by < (ends.ended).at, TRUE)
        AND (
            (look.event = 'inventory' AND look.job_id = ends.job_id AND look.reason = 'leased')
            OR (look.event = 'scan' AND look.outcome = 'ok' AND look.queue = ends.queue)
        )
),
judged AS (
    SELECT
        ends.*,
        seen.span_id IS NULL AND ended IS NULL AND counted IS DISTINCT FROM TRUE AS uncounted,
        CASE
            WHEN granted IS NULL
                THEN 'nobody knows whether it was granted'
            WHEN due_at IS NULL
                THEN 'it does not say when it runs out'
            WHEN ended IS NOT NULL AND NOT one_clock(moment, ended)
                THEN 'only the clock of another host tells when it was ended'
            WHEN (ended).at <= due_at
                THEN 'it may have been ended in time'
            WHEN ended IS NULL AND unanswered AND NOT coalesce(counted, FALSE)
                THEN 'its settlement got no answer'
            WHEN ended IS NULL AND counted AND state IS DISTINCT FROM 'leased'
                THEN 'the queue let go of it at some time that was not recorded'
            WHEN unsure
                THEN 'nobody knows whether it was renewed, or until when'
            -- A queue whose leases end by themselves tells of it only when the job is asked for.
            WHEN seen.span_id IS NULL AND ended_by IS DISTINCT FROM 'reclaim'
                THEN 'nobody was seen to look whether it was free'
        END AS doubt
    FROM ends
    LEFT JOIN seen USING (schedule, span_id)
)
SELECT
    schedule,
    job_id,
    "at",
    [span_id] AS span_ids,
    CASE WHEN doubt IS NULL THEN 'violated' ELSE 'unknown' END AS verdict,
    CASE WHEN uncounted THEN 'inventory' END AS missing,
    "at" AS absent_since,
    coalesce((ended).at, horizon) AS absent_until,
    CASE
        WHEN doubt IS NOT NULL THEN printf('The lease of job %s by %s may be stuck: %s.',
            job_id, actor(worker_id, attempt), doubt)
        WHEN ended IS NULL THEN printf('The lease of job %s by %s is stuck: it ran out and %s later it was neither settled, renewed nor taken back.',
            job_id, actor(worker_id, attempt), how_long(horizon - expires_at))
        ELSE printf('The lease of job %s by %s was stuck for %s after it had run out.',
            job_id, actor(worker_id, attempt), how_long((ended).at - expires_at))
    END AS sentence
FROM judged
