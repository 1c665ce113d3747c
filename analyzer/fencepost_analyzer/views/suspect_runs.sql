-- Executions of the suspects. It ended with the earliest of its own end, its accepted settlement (unless acknowledged
-- before the work) and, if it has no end of its own, its worker's crash: surely by `ended`, and not before `ended_from`;
-- NULL = nobody knows. A settlement without an answer may have been accepted. `backwards`: its clock was set back
-- meanwhile, so its times mean nothing. `shorter`: a settlement that its clock cannot place may have ended it sooner.
-- `granted` and `settled` are positions in the queue's own order.
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
        min(settlement."at") AS "at",
        min((settlement.moment).by) FILTER (
            settlement.happened AND one_clock(run.moment, settlement.moment) AND settlement."at" >= run."at"
        ) AS "by",
        bool_or(NOT one_clock(run.moment, settlement.moment) OR settlement."at" < run."at") AS shorter,
        min(settlement.position) FILTER (settlement.happened) AS position
    FROM run
    JOIN steps AS settlement
        ON run.schedule = settlement.schedule
        AND run.execution_id = settlement.execution_id
        AND (
            coalesce(run.worker_id = settlement.worker_id, TRUE)
            -- A burial by somebody else takes the lease, as a reclaim does: whoever worked under it does not know of it.
            OR settlement.event <> 'dead_letter' AND NOT list_contains(run.workers, settlement.worker_id)
        )
    WHERE settlement.event IN ('ack', 'fail', 'dead_letter', 'retry')
        AND settlement.happened IS DISTINCT FROM FALSE
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
crashed AS (
    -- If another process of that name may have been meant, nobody knows which one died.
    SELECT
        run.schedule, run.trace_id, run.span_id,
        min(death."at") AS "at",
        min(death."by") FILTER (death.mistakable = 1) AS "by"
    FROM run
    JOIN (FROM befallen WHERE event = 'crash') AS death
        ON run.schedule = death.schedule
        AND run.worker_id = death.worker_id
        AND run.host = death.host
        AND run.producer = death.producer
    WHERE run.until IS NULL
    GROUP BY run.schedule, run.trace_id, run.span_id
)
SELECT
    run.schedule, run.job_id, run.execution_id, run.attempt, run.token, run.worker_id, run.queue, run.outcome,
    run."at", run.until, run.host, run.producer, run.moment, run.trace_id, run.span_id,
    crashed."at" AS crashed_at,
    coalesce(run.until < run."at", FALSE) AS backwards,
    coalesce(settled.shorter, FALSE) AS shorter,
    CASE WHEN NOT backwards THEN least(run.until, settled."by", crashed."by") END AS ended,
    CASE WHEN NOT (backwards OR coalesce(settled.shorter, FALSE)) THEN least(run.until, settled."at", crashed."at") END AS ended_from,
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
