-- One row a job: what is known of its fate, in one pass over the events. Completed = acknowledged after the work,
-- dead-lettered, or a run said so. `applied` and `unanswered` count its effect keys.
WITH told AS (
    SELECT
        schedule,
        job_id,
        any_value(queue) AS queue,
        max(effect_total) AS effect_total,
        min("at") FILTER (event = 'enqueue') AS enqueued_at,
        min(position) FILTER (event = 'enqueue') AS enqueue_position,
        count(*) FILTER (event = 'lease' AND outcome = 'ok') AS leases,
        count(*) FILTER (event = 'run') AS runs,
        min("at") FILTER (event IN ('lease', 'run')) AS begun_at,
        min(position) FILTER (event IN ('lease', 'run')) AS begun_position,
        coalesce(
            bool_or(
                outcome = 'ok'
                AND event IN ('ack', 'dead_letter', 'run')
                AND NOT (event = 'ack' AND reason IS NOT DISTINCT FROM 'early')
            ),
            FALSE
        ) AS completed
    FROM events
    WHERE job_id IS NOT NULL
    GROUP BY schedule, job_id
),
written AS (
    SELECT
        schedule,
        job_id,
        count(*) FILTER (applied) AS applied,
        count(*) FILTER (applied IS NULL) AS unanswered
    FROM effects
    GROUP BY schedule, job_id
)
SELECT
    told.*,
    coalesce(written.applied, 0) AS applied,
    coalesce(written.unanswered, 0) AS unanswered
FROM told
LEFT JOIN written USING (schedule, job_id)
