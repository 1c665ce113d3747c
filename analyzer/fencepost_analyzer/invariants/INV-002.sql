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
naps AS (
    SELECT
        contested.schedule, contested.trace_id, contested.span_id,
        nap."at", nap."by", nap.resumed_at, nap.resumed_by, nap.mistakable
    FROM contested
    JOIN (FROM befallen WHERE event = 'pause') AS nap
        ON contested.schedule = nap.schedule
        AND contested.worker_id = nap.worker_id
        AND contested.host = nap.host
        AND contested.producer = nap.producer
        AND contested."at" <= nap."by"
),
drowsy AS (
    -- Stopped, or not: its host or its process is not known, or another process of that name may have been meant.
    SELECT contested.schedule, contested.trace_id, contested.span_id
    FROM contested
    JOIN (FROM events WHERE event IN ('pause', 'resume')) AS nap
        ON contested.schedule = nap.schedule
        AND contested.worker_id = nap.worker_id
        AND coalesce(contested.host = nap.host, TRUE)
        AND (contested.host IS NULL OR nap.host IS NULL OR contested.producer IS NULL)
    UNION
    SELECT schedule, trace_id, span_id
    FROM naps
    WHERE mistakable > 1
),
awake AS (
    -- An execution is awake from its start, and again from each resumption of its process, which was at some time from
    -- `since` to `since_by` ...
    SELECT *, "at" AS since, "at" AS since_by, TRUE AS first FROM contested
    UNION ALL
    SELECT DISTINCT contested.*, naps.resumed_at AS since, naps.resumed_by AS since_by, FALSE AS first
    FROM contested
    JOIN (FROM naps WHERE mistakable = 1 AND resumed_at IS NOT NULL) AS naps
        ON contested.schedule = naps.schedule
        AND contested.trace_id IS NOT DISTINCT FROM naps.trace_id
        AND contested.span_id IS NOT DISTINCT FROM naps.span_id
),
stretches AS (
    -- ... to its end or the next pause, at some time from `asleep_from` to `asleep`.
    SELECT
        awake.*,
        least(awake.ended, pause."by") AS asleep,
        CASE WHEN NOT awake.shorter THEN least(awake.ended_from, pause."at") END AS asleep_from,
        drowsy.schedule IS NOT NULL AS drowsy
    FROM awake
    CROSS JOIN LATERAL (
        SELECT min("at") AS "at", arg_min("by", "at") AS "by"
        FROM naps
        WHERE mistakable = 1
            AND awake.schedule = naps.schedule
            AND awake.trace_id IS NOT DISTINCT FROM naps.trace_id
            AND awake.span_id IS NOT DISTINCT FROM naps.span_id
            AND awake.since <= naps."at"
    ) AS pause
    LEFT JOIN drowsy
        ON awake.schedule = drowsy.schedule
        AND awake.trace_id IS NOT DISTINCT FROM drowsy.trace_id
        AND awake.span_id IS NOT DISTINCT FROM drowsy.span_id
    -- Resumed after its end: then it executed nothing any more.
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
            WHEN a.producer <> b.producer THEN NULL
            ELSE TRUE
        END AS one_execution,
        CASE
            WHEN a.asleep_from < b.asleep_from THEN a.asleep_from
            WHEN a.asleep_from >= b.asleep_from THEN b.asleep_from
        END - greatest(a.since_by, b.since_by) AS together,
        CASE
            -- The queue's own order: one was settled before the other was granted.
            WHEN a.settled < b.granted THEN FALSE
            WHEN b.settled < a.granted THEN FALSE
            -- Clocks, where they are one clock that was not seen to be set back.
            WHEN NOT one_clock(a.moment, b.moment) OR a.backwards OR b.backwards THEN NULL
            WHEN set_over(a.asleep_from, a.asleep, b.since, b.since_by)
                OR set_over(b.asleep_from, b.asleep, a.since, a.since_by)
                THEN NULL
            WHEN precedes(a.moment, b.moment) IS DISTINCT FROM coalesce(clock_says(a.moment, b.moment), precedes(a.moment, b.moment))
                THEN NULL
            WHEN a.asleep <= b.since OR b.asleep <= a.since THEN FALSE
            WHEN a.drowsy OR b.drowsy THEN NULL
            -- One began while the other was at it ...
            WHEN b.first AND a.since_by <= b.since AND b.since < a.asleep_from THEN TRUE
            WHEN a.first AND b.since_by <= a.since AND a.since < b.asleep_from THEN TRUE
            -- ... or both were at it when the later one had gone on.
            WHEN a.since_by < a.asleep_from
                AND a.since_by < b.asleep_from
                AND b.since_by < a.asleep_from
                AND b.since_by < b.asleep_from
                THEN TRUE
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
