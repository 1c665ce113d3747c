-- Leases of the suspects whose execution was not told: no run, no settlement after the work, no crash of the worker.
-- Nobody knows whether it is still at work.
SELECT lease.schedule, lease.job_id, lease.span_id, lease.until
FROM leases AS lease
SEMI JOIN suspects USING (schedule, job_id)
ANTI JOIN (
    SELECT schedule, job_id, execution_id, worker_id
    FROM events
    WHERE event = 'run'
        OR (
            event IN ('ack', 'fail', 'dead_letter', 'retry', 'reclaim')
            AND outcome = 'ok'
            AND reason IS DISTINCT FROM 'early'
        )
) AS told
    ON lease.schedule = told.schedule
    AND lease.job_id = told.job_id
    AND coalesce(lease.execution_id = told.execution_id, lease.worker_id = told.worker_id, TRUE)
ANTI JOIN (FROM befallen WHERE event = 'crash' AND mistakable = 1) AS crash
    ON lease.schedule = crash.schedule
    AND lease.worker_id = crash.worker_id
    AND lease.host = crash.host
    AND lease.producer = crash.producer
