-- id: INV-001
-- title: no duplicate effect
-- severity: critical
-- principle: P1
-- polarity: +
-- needs: write.effect_key
-- claim: Every effect key is applied at most once. Running a job twice is no violation, applying its effect twice is.
WITH keys AS (
    SELECT schedule, effect_key, sum(times) AS applied, sum(unanswered) AS unanswered
    FROM effects
    GROUP BY schedule, effect_key
    -- A store that refused one write of this key and job as a duplicate did not apply two that got no answer: another
    -- job's write may have come to it by another way.
    HAVING sum(CASE WHEN guarded THEN greatest(times, least(effects.unanswered, 1)) ELSE times + effects.unanswered END) > 1
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
),
repeated AS (
    SELECT
        schedule,
        arg_min(job_id, "at") AS job_id,
        max("at") AS at,
        list(span_id ORDER BY "at", span_id) AS span_ids,
        CASE
            -- One key for several numbers of one job's effects: one effect or several?
            WHEN min(job_id) = max(job_id) AND count(DISTINCT effect_index) = applied THEN 'unknown'
            WHEN applied > 1 THEN 'violated'
            ELSE 'unknown'
        END AS verdict,
        CASE
            WHEN verdict = 'violated' THEN printf('Effect %s of job %s was applied %d times: first by %s, last by %s, %s later.',
                effect_key, arg_min(job_id, "at"), applied, arg_min(actor, "at"), arg_max(actor, "at"),
                how_long(max("at") - min("at")))
            WHEN applied > 1 THEN printf('Effect %s of job %s was applied %d times, but each time as another of the job''s effects.',
                effect_key, arg_min(job_id, "at"), applied)
            ELSE printf('Effect %s of job %s may have been applied twice: %d of its writes got no answer (first by %s, last by %s).',
                effect_key, arg_min(job_id, "at"), unanswered, arg_min(actor, "at"), arg_max(actor, "at"))
        END AS sentence
    FROM suspects
    GROUP BY schedule, effect_key, applied, unanswered
),
renamed AS (
    -- Several keys for one number of a job's effects: several effects, or one under a key that each attempt made anew?
    SELECT
        write.schedule,
        write.job_id,
        max(write."at") AS at,
        list(write.span_id ORDER BY write."at", write.span_id) AS span_ids,
        'unknown' AS verdict,
        printf('Effect number %d of job %s was applied under several keys (%s): it may have been applied twice.',
            write.effect_index, write.job_id, string_agg(DISTINCT write.effect_key, ', ' ORDER BY write.effect_key)) AS sentence
    FROM steps AS write
    SEMI JOIN (FROM jobs WHERE puzzling) USING (schedule, job_id)
    WHERE write.event = 'write'
        AND write.happened IS DISTINCT FROM FALSE
        AND write.effect_key IS NOT NULL
        AND write.effect_index IS NOT NULL
    GROUP BY write.schedule, write.job_id, write.effect_index
    HAVING count(DISTINCT write.effect_key) > 1
)
FROM repeated
UNION ALL BY NAME
FROM renamed
