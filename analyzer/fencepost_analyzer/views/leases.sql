-- Leases that were granted.
SELECT
    schedule, job_id, execution_id, attempt, token, worker_id, queue,
    "at", until, position, host, producer, moment, span_id
FROM moments
WHERE event = 'lease'
    AND outcome = 'ok'
