-- The last inventory of each queue.
SELECT
    schedule,
    queue,
    max("at") AS at,
    arg_max(moment, "at") AS moment,
    arg_max(span_id, "at") AS span_id
FROM moments
WHERE event = 'inventory'
    AND job_id IS NULL
    AND outcome IS DISTINCT FROM 'failed'
GROUP BY schedule, queue
