-- Events that do not say which job they are of, or which effect, so that no invariant can place them. What was refused
-- did not happen; an execution that failed did.
SELECT schedule, event, 'job_id' AS lacks, producer, "at", CASE event WHEN 'run' THEN until ELSE "at" END AS until, span_id
FROM events
WHERE job_id IS NULL
    AND event IN ('enqueue', 'lease', 'run', 'renew', 'write', 'ack', 'fail', 'dead_letter', 'retry', 'reclaim')
    AND (event = 'run' OR outcome IS DISTINCT FROM 'failed')
UNION ALL
SELECT schedule, event, 'effect_key' AS lacks, producer, "at", "at" AS until, span_id
FROM events
WHERE effect_key IS NULL
    AND event = 'write'
    AND outcome IS DISTINCT FROM 'failed'
