-- A time of 0 or before, which is 1970 and none, or after 2096, or a position of that size, is hostile or broken, and
-- arithmetic with it would overflow: it becomes null. Tokens are numbered by queue: where a job was seen in several, an
-- execution's id names its. An empty name is none.
WITH incoming AS (
    SELECT * REPLACE (
        nullif(job_id, '') AS job_id,
        nullif(execution_id, '') AS execution_id,
        nullif(worker_id, '') AS worker_id,
        nullif(queue, '') AS queue,
        nullif(effect_key, '') AS effect_key,
        nullif(host, '') AS host,
        nullif(producer, '') AS producer
    )
    FROM source
),
several AS (
    SELECT coalesce(schedule, 0) AS schedule, job_id
    FROM incoming
    WHERE job_id IS NOT NULL
    GROUP BY ALL
    HAVING min(queue) < max(queue)
),
-- A number that was given to two jobs is of no one counter: two databases number from 1 each. Then nothing can be
-- concluded from any of them, and they become null, too.
renumbered AS (
    SELECT DISTINCT coalesce(schedule, 0) AS schedule
    FROM incoming
    WHERE position IS NOT NULL
        AND NOT (event = 'inventory' AND job_id IS NOT NULL)
    GROUP BY coalesce(schedule, 0), position
    HAVING min(coalesce(job_id, span_id)) <> max(coalesce(job_id, span_id))
)
SELECT
    coalesce(schedule, 0) AS schedule,
    event,
    job_id,
    attempt,
    CASE
        WHEN execution_id IS NOT NULL THEN execution_id
        WHEN token IS NOT NULL AND (coalesce(schedule, 0), job_id) NOT IN (FROM several) THEN job_id || '#' || token
        WHEN token IS NOT NULL AND queue IS NOT NULL THEN job_id || '#' || token || ' in ' || queue
        WHEN event = 'run' THEN job_id || '@' || span_id
    END AS execution_id,
    worker_id,
    queue,
    CASE WHEN "at" BETWEEN 1 AND 4_000_000_000_000_000_000 THEN "at" END AS at,
    CASE WHEN until BETWEEN 1 AND 4_000_000_000_000_000_000 THEN until END AS until,
    CASE WHEN decided_by BETWEEN 1 AND 4_000_000_000_000_000_000 THEN decided_by END AS decided_by,
    CASE
        WHEN position BETWEEN 0 AND 4_000_000_000_000_000_000
            AND coalesce(schedule, 0) NOT IN (FROM renumbered) THEN position
    END AS position,
    token,
    effect_key,
    effect_index,
    effect_total,
    outcome,
    reason,
    intent,
    order_key,
    host,
    producer,
    producer_seq,
    producer_end_seq,
    trace_id,
    span_id
FROM incoming
