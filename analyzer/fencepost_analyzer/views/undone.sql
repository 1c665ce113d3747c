-- Steps without an answer that are proved not to have happened: the worker was killed inside the step, and the
-- queue's own numbering of durable steps shows that nothing was left unreported. It rests on four things:
-- every step that was answered carries a number; the execution's lease does, too; no number after that lease is
-- missing; and a numbered step was seen after the worker's death, so that the numbering had its chance to show a
-- hole. Without all four, nobody knows. (A lost reply is never proved undone: the server may still be at it.)
WITH crashed AS (
    SELECT
        open.schedule, open.event, open.span_id, open.effect_key, open.execution_id, open.host, open.at,
        crash."by" AS crashed_at
    FROM events AS open
    JOIN (FROM befallen WHERE event = 'crash' AND mistakable = 1) AS crash
        ON open.schedule = crash.schedule
        AND open.worker_id = crash.worker_id
        AND open.host = crash.host
        AND open.producer = crash.producer
    WHERE coalesce(open.outcome, 'unknown') = 'unknown'
        AND open.producer_end_seq IS NULL
        AND open.event IN ('write', 'ack', 'fail', 'dead_letter', 'retry', 'renew')
),
numbered AS (
    SELECT schedule, position, lead(position) OVER (PARTITION BY schedule ORDER BY position) AS following
    FROM (SELECT DISTINCT schedule, position FROM events WHERE position IS NOT NULL)
    WHERE schedule IN (SELECT schedule FROM crashed)
),
unbroken AS (
    -- From this number on, none is missing.
    SELECT schedule, coalesce(max(following) FILTER (following > position + 1), min(position)) AS since
    FROM numbered
    GROUP BY schedule
),
unnumbered AS (
    SELECT DISTINCT schedule, event
    FROM events
    WHERE position IS NULL
        AND outcome = 'ok'
),
seen AS (
    SELECT schedule, host, max("at") AS until
    FROM events
    WHERE position IS NOT NULL
    GROUP BY schedule, host
)
SELECT DISTINCT crashed.schedule, crashed.event, crashed.span_id, crashed.effect_key
FROM crashed
JOIN leases
    ON crashed.schedule = leases.schedule
    AND crashed.execution_id = leases.execution_id
JOIN unbroken
    ON crashed.schedule = unbroken.schedule
    AND leases.position >= unbroken.since
JOIN seen
    ON crashed.schedule = seen.schedule
    AND crashed.host = seen.host
    AND crashed.crashed_at < seen.until
    AND NOT clock_was_set(crashed.at, seen.until)
ANTI JOIN unnumbered
    ON crashed.schedule = unnumbered.schedule
    AND crashed.event = unnumbered.event
