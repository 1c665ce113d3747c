-- Durable steps on a job. `happened`: TRUE = accepted or applied, FALSE = refused or proved undone, NULL = nobody
-- knows, because the step never ended or its reply was lost.
SELECT
    step.*,
    CASE
        WHEN step.outcome = 'ok' THEN TRUE
        WHEN step.outcome = 'failed' THEN FALSE
        WHEN undone.span_id IS NOT NULL THEN FALSE
    END AS happened
FROM moments AS step
LEFT JOIN undone
    ON step.schedule = undone.schedule
    AND step.event = undone.event
    AND step.span_id = undone.span_id
    AND step.effect_key IS NOT DISTINCT FROM undone.effect_key
WHERE step.event IN ('write', 'ack', 'fail', 'dead_letter', 'retry', 'reclaim', 'renew')
