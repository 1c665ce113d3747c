-- One row a job: what is known of its fate. Completed = acknowledged after the work, dead-lettered, or a run said so.
SELECT
    schedule,
    job_id,
    any_value(queue) AS queue,
    max(effect_total) AS effect_total,
    coalesce(bool_or(event = 'enqueue' AND outcome = 'ok'), FALSE) AS acknowledged,
    coalesce(
        bool_or(
            (event = 'ack' AND outcome = 'ok' AND reason IS DISTINCT FROM 'early')
            OR (event = 'dead_letter' AND outcome = 'ok')
            OR (event = 'run' AND outcome = 'ok')
        ),
        FALSE
    ) AS completed
FROM events
WHERE job_id IS NOT NULL
GROUP BY schedule, job_id
