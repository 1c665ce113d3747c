-- id: INV-001
-- title: no duplicate effect
-- severity: critical
-- principle: P1
-- polarity: +
-- needs: write, write.effect_key
-- claim: Every effect key is applied at most once. Running a job twice is no violation, applying its effect twice is.
WITH keys AS (
    SELECT schedule, effect_key, sum(times) AS applied, sum(unanswered) AS unanswered
    FROM effects
    GROUP BY schedule, effect_key
    HAVING applied > 1
        -- A store that refused one write of this key as a duplicate does not apply another.
        OR (applied + sum(effects.unanswered) > 1 AND NOT bool_or(guarded))
),
suspects AS (
    SELECT
        write.*,
        keys.applied,
        keys.unanswered,
        actor(write.worker_id, write.attempt) AS actor
    FROM keys
    JOIN steps AS write
        ON keys.schedule = write.schedule
        AND keys.effect_key = write.effect_key
        AND write.event = 'write'
    WHERE write.happened
        OR (write.happened IS NULL AND keys.applied < 2)
)
SELECT
    schedule,
    arg_min(job_id, "at") AS job_id,
    max("at") AS at,
    list(span_id ORDER BY "at", span_id) AS span_ids,
    CASE WHEN applied > 1 THEN 'violated' ELSE 'unknown' END AS verdict,
    CASE
        WHEN applied > 1 THEN printf('Effect %s of job %s was applied %d times: first by %s, last by %s, %s later.',
            effect_key, arg_min(job_id, "at"), applied, arg_min(actor, "at"), arg_max(actor, "at"),
            how_long(max("at") - min("at")))
        ELSE printf('Effect %s of job %s may have been applied twice: %d of its writes got no answer (first by %s, last by %s).',
            effect_key, arg_min(job_id, "at"), unanswered, arg_min(actor, "at"), arg_max(actor, "at"))
    END AS sentence
FROM suspects
GROUP BY schedule, effect_key, applied, unanswered
