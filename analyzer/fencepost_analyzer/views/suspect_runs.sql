-- Executions of the suspects. `ended` = the earliest of its own end, its accepted settlement (unless acknowledged
-- before the work) and its worker's crash; NULL = it never ended, as far as is known. `granted` and `settled` are
-- positions in the queue's own order.
WITH suspected AS (
    SELECT moments.*
    FROM moments
    SEMI JOIN suspects USING (schedule, job_id)
),
settled AS (
    SELECT schedule, execution_id, min("at") AS "at", min(position) AS position
    FROM suspected
    WHERE event IN ('ack', 'fail', 'dead_letter', 'retry')
        AND outcome = 'ok'
        AND reason IS DISTINCT FROM 'early'
    GROUP BY schedule, execution_id
),
granted AS (
    SELECT schedule, execution_id, min(position) AS position
    FROM suspected
    WHERE event = 'lease'
        AND outcome = 'ok'
    GROUP BY schedule, execution_id
)
SELECT
    run.schedule, run.job_id, run.execution_id, run.attempt, run.token, run.worker_id, run.queue, run.outcome,
    run."at", run.until, run.host, run.producer, run.moment, run.span_id,
    crash."at" AS crashed_at,
    least(run.until, settled."at", crash."at") AS ended,
    granted.position AS granted,
    settled.position AS settled
FROM suspected AS run
LEFT JOIN settled
    ON run.schedule = settled.schedule
    AND run.execution_id = settled.execution_id
LEFT JOIN granted
    ON run.schedule = granted.schedule
    AND run.execution_id = granted.execution_id
ASOF LEFT JOIN (SELECT schedule, worker_id, "at" FROM events WHERE event = 'crash') AS crash
    ON run.schedule = crash.schedule
    AND run.worker_id = crash.worker_id
    AND run."at" <= crash."at"
WHERE run.event = 'run'
