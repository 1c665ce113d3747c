-- The last inventory of each queue that was answered in full: what it does not list, the queue does not hold. One that
-- was refused, cut off or never answered lists nothing, and that says nothing.
SELECT
    schedule,
    queue,
    max("at") AS at,
    arg_max(moment, "at") AS moment,
    arg_max(span_id, "at") AS span_id
FROM moments
WHERE event = 'inventory'
    AND job_id IS NULL
    AND outcome = 'ok'
GROUP BY schedule, queue
