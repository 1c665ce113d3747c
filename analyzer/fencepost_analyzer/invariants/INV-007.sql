-- id: INV-007
-- title: no partial write
-- severity: critical
-- principle: P2
-- polarity: -
-- needs: enqueue.effect_total, write, write.effect_key
-- claim: Once a job is at rest, either none of its declared effects is applied or all of them are.
WITH written AS (
    SELECT
        schedule, job_id,
        count(*) FILTER (applied) AS applied,
        count(*) FILTER (applied IS NULL) AS unanswered,
        min("at") AS at,
        list(effect_key ORDER BY effect_key) FILTER (applied) AS keys,
        list_slice(flatten(list(span_ids ORDER BY "at")), 1, 20) AS span_ids
    FROM effects
    WHERE applied IS DISTINCT FROM FALSE
    GROUP BY schedule, job_id
),
partial AS (
    SELECT written.*, jobs.effect_total
    FROM written
    JOIN jobs USING (schedule, job_id)
    WHERE coalesce(written.applied < jobs.effect_total, TRUE)
        -- One effect, whatever became of it, is not a part of anything.
        AND coalesce(jobs.effect_total > 1, TRUE)
),
running AS (
    SELECT schedule, job_id, bool_or(ended IS NULL) AS running
    FROM runs
    SEMI JOIN partial USING (schedule, job_id)
    GROUP BY schedule, job_id
),
judged AS (
    SELECT
        partial.*,
        holdings.span_id AS inventory_span_id,
        CASE
            WHEN partial.effect_total IS NULL
                THEN 'its enqueue does not say how many effects it has'
            WHEN partial.applied + partial.unanswered >= partial.effect_total OR partial.applied = 0
                THEN 'some of its writes got no answer'
            WHEN running.running
                THEN 'an execution of it was never seen to end'
            WHEN holdings.state IN ('ready', 'leased') AND NOT (holdings.ended AND holdings.after_ending IS NOT TRUE)
                THEN 'it is still held by the queue'
            WHEN endings.moment IS NULL AND holdings.moment IS NULL
                THEN 'nothing says whether the queue is done with it'
        END AS doubt,
        endings.moment IS NULL AND holdings.moment IS NULL AS uncounted
    FROM partial
    LEFT JOIN running USING (schedule, job_id)
    LEFT JOIN holdings
        ON partial.schedule = holdings.schedule
        AND partial.job_id = holdings.job_id
    LEFT JOIN endings
        ON partial.schedule = endings.schedule
        AND partial.job_id = endings.job_id
)
SELECT
    schedule,
    job_id,
    "at",
    span_ids,
    CASE WHEN doubt IS NULL THEN 'violated' ELSE 'unknown' END AS verdict,
    CASE WHEN uncounted THEN 'inventory' END AS missing,
    "at" AS absent_since,
    CASE
        WHEN doubt IS NULL THEN printf('Job %s is half done for good: %d of its %d effects applied (%s), and the queue will not run it again.',
            job_id, applied, effect_total, list_aggregate(list_slice(keys, 1, 5), 'string_agg', ', '))
        ELSE printf('Job %s may be half done: %d of its %s effects are known to be applied, but %s.',
            job_id, applied, coalesce(effect_total::VARCHAR, 'unknown number of'), doubt)
    END AS sentence
FROM judged
