-- Executions of the suspects. `ended` = the earliest of its own end, its accepted settlement (unless acknowledged
-- before the work) and, if it has no end of its own, its worker's crash; NULL = it never ended, as far as is known.
-- `backwards`: its clock was set back meanwhile, so its times mean nothing. `shorter`: a settlement that its clock cannot
-- place may have ended it sooner. `granted` and `settled` are positions in the queue's own order.
WITH suspected AS (
    SELECT moments.*
    FROM moments
    SEMI JOIN suspects USING (schedule, job_id)
),
run AS (
    SELECT *, list(worker_id) OVER (PARTITION BY schedule, execution_id) AS workers
    FROM suspected
    WHERE event = 'run'
),
settled AS (
    -- Where one lease was handed to several workers, what one of them settles ends its own run only.
    SELECT
        run.schedule, run.trace_id, run.span_id,
        min(settlement."at") FILTER (one_clock(run.moment, settlement.moment) AND settlement."at" >= run."at") AS "at",
        bool_or(NOT one_clock(run.moment, settlement.moment) OR settlement."at" < run."at") AS shorter,
        min(settlement.position) AS position
    FROM run
    JOIN suspected AS settlement
        ON run.schedule = settlement.schedule
        AND run.execution_id = settlement.execution_id
        AND (
            coalesce(run.worker_id = settlement.worker_id, TRUE)
            OR NOT list_contains(run.workers, settlement.worker_id)
        )
    WHERE settlement.event IN ('ack', 'fail', 'dead_letter', 'retry')
        AND settlement.outcome = 'ok'
        AND settlement.reason IS DISTINCT FROM 'early'
    GROUP BY run.schedule, run.trace_id, run.span_id
),
granted AS (
    SELECT schedule, execution_id, min(position) AS position
    FROM suspected
    WHERE event = 'lease'
        AND outcome = 'ok'
    GROUP BY schedule, execution_id
),
lived AS (
    SELECT schedule, producer, worker_id, max("at") AS until
    FROM events
    SEMI JOIN (FROM run WHERE until IS NULL) AS open USING (schedule, producer, worker_id)
    WHERE event NOT IN ('crash', 'pause', 'resume')
    GROUP BY schedule, producer, worker_id
),
crashed AS (
    -- Many workers may have one name: a death on another host is not its, nor one that it survived.
    SELECT run.schedule, run.trace_id, run.span_id, min(crash."at") AS "at"
    FROM run
    JOIN lived USING (schedule, producer, worker_id)
    JOIN (FROM events WHERE event = 'crash') AS crash
        ON run.schedule = crash.schedule
        AND run.worker_id = crash.worker_id
        AND run.host = crash.host
        AND greatest(run."at", lived.until) <= crash."at"
    WHERE run.until IS NULL
    GROUP BY run.schedule, run.trace_id, run.span_id
)
SELECT
    run.schedule, run.job_id, run.execution_id, run.attempt, run.token, run.worker_id, run.queue, run.outcome,
    run."at", run.until, run.host, run.producer, run.moment, run.trace_id, run.span_id,
    crashed."at" AS crashed_at,
    coalesce(run.until < run."at", FALSE) AS backwards,
    coalesce(settled.shorter, FALSE) AS shorter,
    CASE WHEN NOT backwards THEN least(run.until, settled."at", crashed."at") END AS ended,
    granted.position AS granted,
    settled.position AS settled
FROM run
LEFT JOIN settled
    ON run.schedule = settled.schedule
    AND run.trace_id IS NOT DISTINCT FROM settled.trace_id
    AND run.span_id IS NOT DISTINCT FROM settled.span_id
LEFT JOIN granted
    ON run.schedule = granted.schedule
    AND run.execution_id = granted.execution_id
LEFT JOIN crashed
    ON run.schedule = crashed.schedule
    AND run.trace_id IS NOT DISTINCT FROM crashed.trace_id
    AND run.span_id IS NOT DISTINCT FROM crashed.span_id
