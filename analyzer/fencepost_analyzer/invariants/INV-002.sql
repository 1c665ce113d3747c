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
napping AS (
    -- Many workers may have one name: a pause on another host is not its, one on a host that is not known may be.
    SELECT schedule, worker_id, host, event, "at"
    FROM events
    WHERE event IN ('pause', 'resume')
),
drowsy AS (
    SELECT contested.schedule, contested.trace_id, contested.span_id
    FROM contested
    JOIN napping
        ON contested.schedule = napping.schedule
        AND contested.worker_id = napping.worker_id
        AND (contested.host = napping.host) IS NULL
    GROUP BY contested.schedule, contested.trace_id, contested.span_id
),
awake AS (
    -- An execution is awake from its start, and again from each resumption of its worker ...
    SELECT *, "at" AS since FROM contested
    UNION ALL
    SELECT contested.*, resume."at" AS since
    FROM contested
    JOIN napping AS resume
        ON contested.schedule = resume.schedule
        AND contested.worker_id = resume.worker_id
        AND contested.host = resume.host
        AND resume.event = 'resume'
        AND resume."at" > contested."at"
),
stretches AS (
    -- ... to its end or the next pause.
    SELECT awake.*, least(awake.ended, pause.at) AS asleep, drowsy.schedule IS NOT NULL AS drowsy
    FROM awake
    ASOF LEFT JOIN (FROM napping WHERE event = 'pause') AS pause
        ON awake.schedule = pause.schedule
        AND awake.worker_id = pause.worker_id
        AND awake.host = pause.host
        AND awake.since <= pause.at
    LEFT JOIN drowsy
        ON awake.schedule = drowsy.schedule
        AND awake.trace_id IS NOT DISTINCT FROM drowsy.trace_id
        AND awake.span_id IS NOT DISTINCT FROM drowsy.span_id
    -- Resumed after its end: that was another execution's worker of the same name.
    WHERE coalesce(awake.since < asleep, TRUE)
),
pairs AS (
    SELECT
        a.schedule, a.job_id, a.at, a.ended, a.span_id,
        actor(a.worker_id, a.attempt) AS actor,
        actor(b.worker_id, b.attempt) AS rival,
        b.at AS rival_at, b.span_id AS rival_span_id,
        a.queue <> b.queue AS elsewhere,
        CASE
            WHEN a.execution_id <> b.execution_id OR a.worker_id <> b.worker_id THEN FALSE
            WHEN a.worker_id = b.worker_id OR a.producer = b.producer THEN TRUE
            WHEN a.producer <> b.producer THEN NULL
            ELSE TRUE
        END AS one_execution,
        CASE
            WHEN a.asleep < b.asleep THEN a.asleep
            WHEN a.asleep >= b.asleep THEN b.asleep
        END - greatest(a.since, b.since) AS together,
        CASE
            -- The queue's own order: one was settled before the other was granted.
            WHEN a.settled < b.granted THEN FALSE
            WHEN b.settled < a.granted THEN FALSE
            -- Clocks, where they are one clock that was not seen to be set back.
            WHEN NOT one_clock(a.moment, b.moment) OR a.backwards OR b.backwards THEN NULL
            WHEN a.producer = b.producer AND precedes(a.moment, b.moment) IS DISTINCT FROM coalesce(clock_says(a.moment, b.moment), precedes(a.moment, b.moment))
                THEN NULL
            -- The later began while the earlier was still at it.
            WHEN a.since <= b.since AND b.since < a.asleep AND (a.shorter OR a.drowsy OR b.drowsy) THEN NULL
            WHEN a.since <= b.since THEN b.since < a.asleep
            WHEN a.since < b.asleep AND (b.shorter OR a.drowsy OR b.drowsy) THEN NULL
            WHEN b.since < a.since THEN a.since < b.asleep
        END
        -- The same id in another queue may be another job, two spans of one lease in two processes one execution.
        AND CASE WHEN elsewhere OR one_execution IS NULL THEN NULL ELSE TRUE END AS overlap
    FROM stretches AS a
    JOIN stretches AS b
        ON a.schedule = b.schedule
        AND a.job_id = b.job_id
        -- Each pair once.
        AND (coalesce(a.at, 0), coalesce(a.trace_id, ''), a.span_id) < (coalesce(b.at, 0), coalesce(b.trace_id, ''), b.span_id)
    WHERE one_execution IS DISTINCT FROM TRUE
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
        WHEN bool_or(elsewhere)
            THEN printf('Job %s may have run twice at once: %s began %s after %s did, in another queue, where it may be another job.',
                job_id, rival, how_long(rival_at - "at"), actor)
        ELSE printf('Job %s may have run twice at once: %s began %s after %s did, and nothing proves that the first had ended.',
            job_id, rival, how_long(rival_at - "at"), actor)
    END AS sentence
FROM pairs
WHERE overlap IS DISTINCT FROM FALSE
GROUP BY schedule, job_id, "at", ended, span_id, actor, rival, rival_at, rival_span_id
