-- id: INV-007
-- title: no partial write
-- severity: critical
-- principle: P2
-- polarity: -
-- needs: enqueue.effect_total, write, write.effect_key
-- claim: Once a job is at rest, either none of its declared effects is applied or all of them are.
WITH partial AS (
    SELECT *
    FROM jobs
    WHERE (coalesce(applied < effects_promised, TRUE) OR puzzling)
        -- One effect, whatever became of it, is not a part of anything.
        AND coalesce(effect_total > 1, TRUE)
),
written AS (
    SELECT
        schedule,
        job_id,
        min(steps."at") AS "at",
        list(DISTINCT effect_key ORDER BY effect_key) FILTER (effects.applied) AS keys,
        list_slice(list(steps.span_id ORDER BY steps."at", steps.span_id), 1, 20) AS span_ids
    FROM steps
    SEMI JOIN partial USING (schedule, job_id)
    JOIN effects USING (schedule, job_id, effect_key)
    WHERE steps.event = 'write'
        AND effects.applied IS DISTINCT FROM FALSE
    GROUP BY schedule, job_id
),
running AS (
    SELECT schedule, job_id
    FROM suspect_runs
    SEMI JOIN partial USING (schedule, job_id)
    WHERE ended IS NULL
    UNION
    SELECT schedule, job_id
    FROM unended
),
judged AS (
    SELECT
        partial.*,
        written."at",
        written.keys,
        written.span_ids,
        holdings.span_id AS inventory_span_id,
        CASE
            WHEN partial.effect_total IS NULL
                THEN 'its enqueue does not say how many effects it has'
            WHEN partial.puzzling
                THEN 'the keys and the numbers of its effects contradict each other'
            WHEN partial.enqueues > 1
                THEN 'it was enqueued more than once, and its effects do not tell which time'
            WHEN partial.unnamed > 0
                THEN 'some of its writes do not say which effect they are'
            WHEN partial.applied + partial.unanswered >= partial.effect_total OR partial.applied = 0
                THEN 'some of its writes got no answer, or were refused as duplicates of writes that nobody was seen to make'
            WHEN running.job_id IS NOT NULL
                THEN 'an execution of it was never seen to end'
            WHEN holdings.state <> 'dead' AND holdings.after_ending IS DISTINCT FROM FALSE
                THEN 'it is still held by the queue'
            WHEN endings.moment IS NULL AND holdings.current IS DISTINCT FROM TRUE
                THEN 'nothing says whether the queue is done with it'
        END AS doubt,
        doubt IS NOT DISTINCT FROM 'nothing says whether the queue is done with it' AS uncounted
    FROM partial
    JOIN written USING (schedule, job_id)
    LEFT JOIN running USING (schedule, job_id)
    LEFT JOIN holdings USING (schedule, job_id)
    LEFT JOIN endings USING (schedule, job_id)
)
SELECT
    schedule,
    job_id,
    "at",
    span_ids,
    CASE WHEN doubt IS NULL THEN 'violated' ELSE 'unknown' END AS verdict,
    CASE WHEN uncounted THEN 'inventory' END AS missing,
    -- The missing writes may have come before those that were seen: any time since the job began.
    enqueued_at AS absent_since,
    CASE
        WHEN doubt IS NULL THEN printf('Job %s is half done for good: %d of its %d effects applied (%s), and the queue will not run it again.',
            job_id, applied, effect_total, list_aggregate(list_slice(keys, 1, 5), 'string_agg', ', '))
        ELSE printf('Job %s may be half done: %d of its %s effects are known to be applied, but %s.',
            job_id, applied, coalesce(effect_total::VARCHAR, 'unknown number of'), doubt)
    END AS sentence
FROM judged
