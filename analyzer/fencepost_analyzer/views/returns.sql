-- What brings a suspect back into the queue or into a worker's hands. The only enqueue of a job is where it came from.
-- `happened` NULL = it never got an answer, so it may have come about at any later time.
SELECT schedule, job_id, 'lease' AS event, execution_id, token, queue, "at", position, moment, granted AS happened
FROM leases
SEMI JOIN suspects USING (schedule, job_id)
UNION ALL BY NAME
SELECT schedule, job_id, event, execution_id, token, queue, "at", position, moment, happened
FROM steps
SEMI JOIN suspects USING (schedule, job_id)
WHERE event IN ('retry', 'reclaim')
    AND happened IS DISTINCT FROM FALSE
UNION ALL BY NAME
SELECT
    schedule, job_id, event, execution_id, token, queue, "at", position, moment,
    CASE WHEN outcome = 'ok' THEN TRUE END AS happened
FROM moments
SEMI JOIN (FROM suspects WHERE enqueues > 1) USING (schedule, job_id)
WHERE event = 'enqueue'
    AND outcome IS DISTINCT FROM 'failed'
