-- id: INV-002
-- title: no concurrent execution
-- severity: high
-- principle: P1
-- polarity: +
-- needs: run
-- claim: Executions of one job never overlap. An execution lasts from its start to its end, its accepted settlement or
--   its worker's crash, whichever is first; while its worker is stopped it executes nothing.
WITH contested AS (
    SELECT suspect_runs.*
    FROM suspect_runs
    SEMI JOIN (FROM jobs WHERE runs > 1) USING (schedule, job_id)
),
awake AS (
    -- An execution is awake from its start, and again from each resumption of its worker ...
    SELECT *, "at" AS since FROM contested
    UNION ALL
    SELECT contested.*, resume."at" AS since
    FROM contested
    JOIN events AS resume
        ON contested.schedule = resume.schedule
        AND contested.worker_id = resume.worker_id
        AND resume.event = 'resume'
        AND resume."at" > contested."at"
),
stretches AS (
    -- ... to its end or the next pause.
    SELECT awake.*, least(awake.ended, pause.at) AS asleep
    FROM awake
    ASOF LEFT JOIN (SELECT schedule, worker_id, "at" FROM events WHERE event = 'pause') AS pause
        ON awake.schedule = pause.schedule
        AND awake.worker_id = pause.worker_id
        AND awake.since <= pause.at
    -- Resumed after its end: that was another execution's worker of the same name.
    WHERE coalesce(awake.since < asleep, TRUE)
),
pairs AS (
    SELECT
        a.schedule, a.job_id, a.at, a.ended, a.span_id,
        actor(a.worker_id, a.attempt) AS actor,
        actor(b.worker_id, b.attempt) AS rival,
        b.at AS rival_at, b.span_id AS rival_span_id,
        CASE
            WHEN a.asleep < b.asleep THEN a.asleep
            WHEN a.asleep >= b.asleep THEN b.asleep
        END - greatest(a.since, b.since) AS together,
        CASE
            -- The queue's own order: one was settled before the other was granted.
            WHEN a.settled < b.granted THEN FALSE
            WHEN b.settled < a.granted THEN FALSE
            -- Clocks, where they are one clock: the later began while the earlier was still at it.
            WHEN NOT coalesce(a.host = b.host, FALSE) AND NOT coalesce(a.producer = b.producer, FALSE) THEN NULL
            WHEN a.since <= b.since THEN b.since < a.asleep
            ELSE a.since < b.asleep
        END AS overlap
    FROM stretches AS a
    JOIN stretches AS b
        ON a.schedule = b.schedule
        AND a.job_id = b.job_id
        AND a.execution_id <> b.execution_id
        AND (a.at, a.span_id) < (b.at, b.span_id)
)
SELECT
    schedule,
    job_id,
    min(rival_at) AS at,
    [span_id, rival_span_id] AS span_ids,
    CASE WHEN bool_or(overlap) THEN 'violated' ELSE 'unknown' END AS verdict,
    -- A settlement or a pause that was not recorded would have ended the first execution sooner.
    "at" AS absent_since,
    coalesce(ended, rival_at) AS absent_until,
    CASE
        WHEN bool_or(overlap) THEN printf('Job %s ran twice at once: %s began %s after %s did, and both were at it for %s.',
            job_id, rival, how_long(rival_at - "at"), actor, how_long(sum(together)))
        ELSE printf('Job %s may have run twice at once: %s began %s after %s did, and nothing proves that the first had ended.',
            job_id, rival, how_long(rival_at - "at"), actor)
    END AS sentence
FROM pairs
WHERE overlap IS DISTINCT FROM FALSE
GROUP BY schedule, job_id, "at", ended, span_id, actor, rival, rival_at, rival_span_id
