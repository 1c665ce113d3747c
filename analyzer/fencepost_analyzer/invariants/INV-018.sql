-- id: INV-018
-- title: causality
-- severity: medium
-- principle: P3
-- polarity: +
-- needs: enqueue, lease | run
-- claim: No job is leased or run before it was enqueued, none comes from nowhere, no write is applied outside its
--   execution, and of a job's leases, as far as they are told, the tokens increase and the attempts do not decrease.
WITH
-- Too early by some measure; which measure is to be trusted is decided below.
early AS (
    SELECT schedule, job_id
    FROM jobs
    WHERE begun_at <= enqueued_at
        OR begun_position < enqueue_position
        OR enqueued_at IS NULL
        OR set_over(begun_at, begun_at, enqueued_at, enqueued_at)
),
enqueued AS (
    -- One that was refused put nothing into the queue.
    SELECT schedule, job_id, moment, "at", span_id
    FROM moments
    SEMI JOIN early USING (schedule, job_id)
    WHERE event = 'enqueue'
        AND outcome IS DISTINCT FROM 'failed'
),
beginnings AS (
    SELECT
        schedule, job_id, moment, position, "at", span_id,
        CASE event WHEN 'lease' THEN 'leased by ' ELSE 'run by ' END || actor(worker_id, attempt) AS what
    FROM moments
    SEMI JOIN early USING (schedule, job_id)
    WHERE event IN ('lease', 'run')
),
-- The first by the queue's own order, if it has one.
begun AS (
    SELECT DISTINCT ON (schedule, job_id) *
    FROM beginnings
    ORDER BY schedule, job_id, position NULLS LAST, "at", span_id
),
-- Before each enqueue that may be its own.
premature AS (
    SELECT
        beginnings.schedule, beginnings.job_id, beginnings.span_id,
        any_value(beginnings.moment) AS moment,
        any_value(beginnings.position) AS position,
        any_value(beginnings.at) AS "at",
        any_value(beginnings.what) AS what,
        arg_min(enqueued.span_id, enqueued.at) AS enqueue_span_id,
        min(enqueued.at) AS enqueued_at,
        bool_and(coalesce(precedes(beginnings.moment, enqueued.moment), FALSE)) AS surely
    FROM beginnings
    JOIN enqueued USING (schedule, job_id)
    GROUP BY beginnings.schedule, beginnings.job_id, beginnings.span_id
    HAVING bool_and(coalesce(
        precedes(beginnings.moment, enqueued.moment),
        beginnings.at < enqueued.at OR set_over(beginnings.at, beginnings.at, enqueued.at, enqueued.at),
        TRUE
    ))
),
-- What is not in the recording did not happen before it, or beside it, only as far as the queue's own numbers go on
-- from 1 without a hole: an enqueue or a lease that was not recorded would have left one.
numbered AS (
    SELECT schedule, position, row_number() OVER (PARTITION BY schedule ORDER BY position) AS place
    FROM (SELECT DISTINCT schedule, position FROM events WHERE position > 0)
),
covered AS (
    SELECT schedule, max(position) FILTER (position = place) AS until
    FROM numbered
    -- Where some enqueues get no number, none would be missed.
    ANTI JOIN (FROM events WHERE event = 'enqueue' AND outcome = 'ok' AND position IS NULL) AS unnumbered
        USING (schedule)
    GROUP BY schedule
),
before_enqueue AS (
    SELECT DISTINCT ON (premature.schedule, premature.job_id)
        premature.schedule,
        premature.job_id,
        premature.at,
        [premature.span_id, premature.enqueue_span_id] AS span_ids,
        CASE WHEN surely AND premature.position <= covered.until THEN 'violated' ELSE 'unknown' END AS verdict,
        NULL::BIGINT AS absent_since,
        premature.at AS absent_until,
        printf('Job %s was %s %sbefore it was enqueued.', premature.job_id, premature.what,
            CASE WHEN premature.enqueued_at > premature.at THEN how_long(premature.enqueued_at - premature.at) || ' ' ELSE '' END) AS sentence
    FROM premature
    LEFT JOIN covered USING (schedule)
    ORDER BY premature.schedule, premature.job_id, verdict DESC, premature.position NULLS LAST, premature.at, premature.span_id
),
from_nowhere AS (
    SELECT
        begun.schedule,
        begun.job_id,
        begun.at,
        [begun.span_id] AS span_ids,
        CASE WHEN (begun.moment).position <= covered.until THEN 'violated' ELSE 'unknown' END AS verdict,
        NULL::BIGINT AS absent_since,
        begun.at AS absent_until,
        printf('Job %s was %s, but nobody enqueued it%s.', begun.job_id, begun.what,
            CASE WHEN (begun.moment).position <= covered.until THEN '' ELSE ' in this recording: it may have been enqueued before' END) AS sentence
    FROM begun
    ANTI JOIN enqueued USING (schedule, job_id)
    LEFT JOIN covered USING (schedule)
),
stray_writes AS (
    SELECT write.*
    FROM steps AS write
    ANTI JOIN events AS execution
        ON write.schedule = execution.schedule
        AND write.execution_id = execution.execution_id
        AND execution.event IN ('lease', 'run')
    -- A write that does not say which execution it belongs to may belong to any of its job's.
    ANTI JOIN (FROM jobs WHERE begun_at IS NOT NULL) AS begun_job
        ON write.schedule = begun_job.schedule
        AND write.job_id = begun_job.job_id
        AND write.execution_id IS NULL
    WHERE write.event = 'write'
        AND write.happened IS DISTINCT FROM FALSE
),
outside_execution AS (
    SELECT
        schedule,
        job_id,
        "at",
        [span_id] AS span_ids,
        CASE WHEN position <= covered.until THEN 'violated' ELSE 'unknown' END AS verdict,
        NULL::BIGINT AS absent_since,
        "at" AS absent_until,
        printf('Job %s: %s wrote effect %s outside any execution of the job that was recorded.',
            coalesce(job_id, '(unnamed)'), actor(worker_id, attempt), coalesce(effect_key, '(unnamed)')) AS sentence
    FROM stray_writes
    LEFT JOIN covered USING (schedule)
),
executed AS (
    SELECT
        schedule, execution_id, moment,
        {
            'position': NULL::BIGINT, 'host': host, 'producer': producer,
            'producer_seq': producer_end_seq, 'producer_end_seq': producer_end_seq, 'at': until, 'by': until
        } AS finished
    FROM moments
    WHERE event = 'run'
),
outlying AS (
    -- Neither in one nor in another run of its execution. One that was never seen to end had not ended.
    SELECT
        write.schedule, write.job_id, write.at, write.span_id, write.worker_id, write.attempt, write.effect_key,
        bool_and(write.happened IS NOT NULL) AND count(*) FILTER (outside) = count(*) AS surely
    FROM (
        SELECT
            step.*,
            precedes(step.moment, run.moment)
            OR ((run.finished).at IS NOT NULL AND precedes(run.finished, step.moment)) AS outside
        FROM steps AS step
        JOIN executed AS run
            ON step.schedule = run.schedule
            AND step.execution_id = run.execution_id
        WHERE step.event = 'write'
            AND step.happened IS DISTINCT FROM FALSE
    ) AS write
    GROUP BY ALL
    HAVING count(*) FILTER (outside IS FALSE) = 0
),
beside_runs AS (
    SELECT
        schedule,
        job_id,
        "at",
        [span_id] AS span_ids,
        CASE WHEN surely THEN 'violated' ELSE 'unknown' END AS verdict,
        "at" AS absent_since,
        "at" AS absent_until,
        CASE
            WHEN surely THEN printf('Job %s: %s wrote effect %s while its execution was not at work.',
                job_id, actor(worker_id, attempt), coalesce(effect_key, '(unnamed)'))
            ELSE printf('Job %s: nothing proves that %s wrote effect %s while its execution was at work.',
                job_id, actor(worker_id, attempt), coalesce(effect_key, '(unnamed)'))
        END AS sentence
    FROM outlying
),
before_lease AS (
    SELECT
        write.schedule,
        write.job_id,
        write.at,
        [write.span_id, lease.span_id] AS span_ids,
        CASE WHEN write.happened THEN 'violated' ELSE 'unknown' END AS verdict,
        NULL::BIGINT AS absent_since,
        NULL::BIGINT AS absent_until,
        printf('Job %s: %s wrote effect %s before it had been given the job.',
            write.job_id, actor(write.worker_id, write.attempt), coalesce(write.effect_key, '(unnamed)')) AS sentence
    FROM steps AS write
    JOIN (FROM leases WHERE granted) AS lease
        ON write.schedule = lease.schedule
        AND write.execution_id = lease.execution_id
    WHERE write.event = 'write'
        AND write.happened IS DISTINCT FROM FALSE
        AND precedes(write.moment, lease.moment)
),
granted AS (
    SELECT schedule, job_id, token, attempt, worker_id, queue, moment, "at", span_id
    FROM leases
    SEMI JOIN (FROM jobs WHERE jobs.leases > 1) USING (schedule, job_id)
    WHERE granted
),
reversed AS (
    -- Tokens are numbered by queue; attempts by job, from each enqueue anew.
    SELECT
        earlier, later,
        coalesce(later.queue = earlier.queue AND later.token <= earlier.token, FALSE) AS by_token,
        later.queue <> earlier.queue AS elsewhere
    FROM granted AS earlier
    JOIN granted AS later
        ON earlier.schedule = later.schedule
        AND earlier.job_id = later.job_id
        AND precedes(earlier.moment, later.moment)
    WHERE by_token
        OR later.attempt < earlier.attempt
),
backwards AS (
    SELECT
        later.schedule,
        later.job_id,
        later.at,
        [earlier.span_id, later.span_id] AS span_ids,
        CASE
            WHEN by_token THEN 'violated'
            WHEN elsewhere OR count(*) FILTER (again.event IS NOT NULL) > 0 THEN 'unknown'
            ELSE 'violated'
        END AS verdict,
        -- Only a second enqueue of the same id, unrecorded, could have begun a new count.
        earlier.at AS absent_since,
        later.at AS absent_until,
        printf('Job %s: the lease by %s does not follow the one by %s: token %s came after %s, attempt %s after %s.',
            later.job_id, actor(later.worker_id, later.attempt), actor(earlier.worker_id, earlier.attempt),
            coalesce(later.token::VARCHAR, 'none'), coalesce(earlier.token::VARCHAR, 'none'),
            coalesce(later.attempt::VARCHAR, 'none'), coalesce(earlier.attempt::VARCHAR, 'none')) AS sentence
    FROM reversed
    LEFT JOIN moments AS again
        ON later.schedule = again.schedule
        AND later.job_id = again.job_id
        AND again.event = 'enqueue'
        AND again.outcome IS DISTINCT FROM 'failed'
        AND coalesce(precedes(earlier.moment, again.moment), TRUE)
        AND coalesce(precedes(again.moment, later.moment), TRUE)
    GROUP BY earlier, later, by_token, elsewhere
    -- Enqueued again for sure between the two: a new count.
    HAVING by_token
        OR NOT coalesce(
            bool_or(
                again.outcome = 'ok'
                AND precedes(earlier.moment, again.moment)
                AND precedes(again.moment, later.moment)
            ),
            FALSE
        )
)
FROM before_enqueue
UNION ALL BY NAME
FROM from_nowhere
UNION ALL BY NAME
FROM outside_execution
UNION ALL BY NAME
FROM beside_runs
UNION ALL BY NAME
FROM before_lease
UNION ALL BY NAME
FROM backwards
