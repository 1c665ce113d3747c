-- One row an effect key of a job. `times` it was applied for sure, `unanswered` writes that may have been. `applied`:
-- TRUE = it took effect, NULL = nobody knows. A write that the store refused as a duplicate (`guarded`) says that the
-- effect had been applied before: that decides what nobody was told, but does not make up a write that nobody was seen
-- to make. `least_index` to `most_index`: as which of the job's effects it was written.
SELECT
    schedule,
    job_id,
    effect_key,
    count(*) FILTER (happened) AS times,
    count(*) FILTER (happened IS NULL) AS unanswered,
    coalesce(bool_or(reason = 'duplicate'), FALSE) AS guarded,
    CASE
        WHEN times > 0 THEN TRUE
        WHEN guarded AND sum(times + unanswered) OVER (PARTITION BY schedule, effect_key) > 0 THEN TRUE
        WHEN guarded OR unanswered > 0 THEN NULL
        ELSE FALSE
    END AS applied,
    min(effect_index) FILTER (happened IS DISTINCT FROM FALSE) AS least_index,
    max(effect_index) FILTER (happened IS DISTINCT FROM FALSE) AS most_index
FROM steps
WHERE event = 'write'
    AND effect_key IS NOT NULL
GROUP BY schedule, job_id, effect_key
