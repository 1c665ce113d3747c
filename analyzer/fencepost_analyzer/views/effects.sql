-- One row an effect key of a job. `applied`: TRUE = it took effect at least once, NULL = nobody knows. A write that
-- the store refused as a duplicate proves that the effect had been applied before.
SELECT
    schedule,
    job_id,
    effect_key,
    CASE
        WHEN bool_or(happened OR reason = 'duplicate') THEN TRUE
        WHEN bool_or(happened IS NULL) THEN NULL
        ELSE FALSE
    END AS applied,
    min("at") AS at,
    list(span_id ORDER BY "at", span_id) FILTER (happened IS DISTINCT FROM FALSE) AS span_ids
FROM steps
WHERE event = 'write'
    AND effect_key IS NOT NULL
GROUP BY schedule, job_id, effect_key
