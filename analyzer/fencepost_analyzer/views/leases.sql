-- Leases. `granted` NULL = it never got an answer, so it may have come about, at any later time.
SELECT
    schedule, job_id, execution_id, attempt, token, worker_id, queue,
    "at", until, position, host, producer, moment, span_id,
    CASE WHEN outcome = 'ok' THEN TRUE END AS granted
FROM moments
WHERE event = 'lease'
    AND outcome IS DISTINCT FROM 'failed'
