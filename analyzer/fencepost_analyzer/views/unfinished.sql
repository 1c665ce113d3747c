-- Jobs that are not known to have been completed since they were last enqueued. `surely`: every completion that was
-- seen, if there was any, belongs to an earlier enqueue, or was a burial from which the job came back.
WITH completions AS (
    SELECT
        moments.schedule, moments.job_id, moments.event, moments.span_id, moments.execution_id, moments.queue,
        moments.moment, jobs.enqueues,
        CASE
            WHEN moments.event = 'run'
                THEN {
                    'position': NULL::BIGINT, 'host': host, 'producer': producer,
                    'producer_seq': producer_end_seq, 'producer_end_seq': producer_end_seq, 'at': until, 'by': until
                }
            ELSE moments.moment
        END AS finished
    FROM moments
    JOIN jobs USING (schedule, job_id)
    WHERE moments.outcome = 'ok'
        AND moments.event IN ('ack', 'run', 'dead_letter')
        AND NOT (moments.event = 'ack' AND moments.reason IS NOT DISTINCT FROM 'early')
        AND (jobs.enqueues > 1 OR NOT jobs.worked)
),
enqueued AS (
    SELECT schedule, job_id, queue, moment, happened
    FROM returns
    WHERE event = 'enqueue'
),
met AS (
    -- A completion is of the last enqueue if all that is known of its execution came after every enqueue.
    SELECT
        done.schedule, done.job_id, done.event, done.span_id,
        precedes(enqueued.moment, done.moment) AND coalesce(done.queue = enqueued.queue, TRUE) AS standing,
        enqueued.happened AND precedes(done.finished, enqueued.moment) AS undone
    FROM completions AS done
    JOIN enqueued USING (schedule, job_id)
    UNION ALL BY NAME
    SELECT
        done.schedule, done.job_id, done.event, done.span_id,
        precedes(enqueued.moment, act.moment) AS standing
    FROM completions AS done
    JOIN moments AS act
        ON done.schedule = act.schedule
        AND done.execution_id = act.execution_id
        AND act.event IN ('lease', 'run')
    JOIN enqueued
        ON done.schedule = enqueued.schedule
        AND done.job_id = enqueued.job_id
    UNION ALL BY NAME
    SELECT done.schedule, done.job_id, done.event, done.span_id, partings.final AS standing, partings.undone
    FROM completions AS done
    JOIN partings USING (schedule, job_id, event, span_id)
    WHERE done.event = 'dead_letter'
),
told AS (
    SELECT schedule, job_id, bool_or(standing) AS finished, bool_and(undone) AS surely
    FROM (
        SELECT
            schedule, job_id,
            bool_and(coalesce(standing, FALSE)) AS standing,
            bool_or(coalesce(undone, FALSE)) AS undone
        FROM met
        GROUP BY schedule, job_id, event, span_id
    )
    GROUP BY schedule, job_id
)
SELECT jobs.*, coalesce(told.surely, TRUE) AS surely
FROM jobs
LEFT JOIN told USING (schedule, job_id)
WHERE (jobs.enqueues > 1 OR NOT jobs.worked)
    AND NOT coalesce(told.finished, FALSE)
