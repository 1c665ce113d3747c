-- What befell a process, seen from outside, at some time from `at` to `by`: a crash, or a stop that lasted until some time
-- from `resumed_at` to `resumed_by` (NULL = for ever, as far as is known). It is told of a name on a host, and a name is
-- no process: one row for each that it may have been, `mistakable` in all. Those are the processes that were seen before,
-- and not afterwards, or meanwhile; and who was not seen since the crash before, died then.
WITH told AS (
    SELECT
        schedule, event, worker_id, host, span_id, "at",
        greatest("at", decided_by) AS "by",
        lag(greatest("at", decided_by)) OVER (PARTITION BY schedule, event, worker_id, host ORDER BY "at", span_id)
            AS before
    FROM events
    WHERE event IN ('crash', 'pause', 'resume')
),
acts AS (
    SELECT schedule, worker_id, host, producer, "at"
    FROM events
    SEMI JOIN told USING (schedule, worker_id, host)
    WHERE event NOT IN ('crash', 'pause', 'resume')
),
lives AS (
    SELECT schedule, worker_id, host, producer, min("at") AS began, max("at") AS until
    FROM acts
    GROUP BY schedule, worker_id, host, producer
),
ended AS (
    SELECT told.*, NULL::BIGINT AS resumed_at, NULL::BIGINT AS resumed_by, lives.producer
    FROM told
    JOIN lives USING (schedule, worker_id, host)
    WHERE told.event = 'crash'
        AND lives.until <= told."by"
        AND coalesce(lives.until > told.before, TRUE)
),
stopped AS (
    SELECT told.*, resumed."at" AS resumed_at, resumed."by" AS resumed_by
    FROM (FROM told WHERE event = 'pause') AS told
    ASOF LEFT JOIN (FROM told WHERE event = 'resume') AS resumed
        ON told.schedule = resumed.schedule
        AND told.worker_id = resumed.worker_id
        AND told.host = resumed.host
        AND told."at" <= resumed."at"
),
halted AS (
    SELECT stopped.*, lives.producer
    FROM stopped
    JOIN lives USING (schedule, worker_id, host)
    ANTI JOIN acts
        ON stopped.schedule = acts.schedule
        -- Under that very name: one process may play several workers, as a simulated one plays all.
        AND stopped.worker_id = acts.worker_id
        AND stopped.host = acts.host
        AND lives.producer = acts.producer
        AND stopped."by" < acts."at"
        AND coalesce(acts."at" < stopped.resumed_at, TRUE)
    WHERE lives.began <= stopped."by"
)
SELECT *, count(*) OVER (PARTITION BY schedule, event, worker_id, host, span_id) AS mistakable
FROM (FROM ended UNION ALL BY NAME FROM halted)
