-- What inventories say of each job: the one that lists it, else the last one of its own queue, in which it is absent
-- (`state` NULL). A job that was seen in several queues is absent only from all of them, one without a queue only from
-- every queue that was counted, and the earliest counts; an inventory without a queue speaks for those queues that have
-- none of their own. `after_ending`: taken after the job was let go of. `current`: taken after all that was seen to
-- bring the job back or hand it out, and, if it is held, of it being let go of without its work.
WITH places AS (
    SELECT schedule, job_id, queue
    FROM jobs
    WHERE queue IS NOT DISTINCT FROM other_queue
    UNION ALL
    SELECT DISTINCT schedule, job_id, queue
    FROM events
    SEMI JOIN (FROM jobs WHERE queue < other_queue) USING (schedule, job_id)
    WHERE queue IS NOT NULL
),
counted AS (
    SELECT places.schedule, places.job_id, own.at, own.moment, own.span_id
    FROM places
    JOIN inventories AS own USING (schedule, queue)
    UNION ALL
    SELECT places.schedule, places.job_id, general.at, general.moment, general.span_id
    FROM places
    ANTI JOIN inventories USING (schedule, queue)
    LEFT JOIN (
        SELECT
            schedule,
            arg_min(queue IS NULL, "at") AS nameless,
            min("at") AS "at",
            arg_min(moment, "at") AS moment,
            arg_min(span_id, "at") AS span_id
        FROM inventories
        GROUP BY schedule, queue IS NULL
    ) AS general
        ON places.schedule = general.schedule
        AND (general.nameless OR places.queue IS NULL)
),
told AS (
    SELECT schedule, job_id, "at", moment, span_id, state
    FROM held
    UNION ALL BY NAME
    SELECT
        schedule,
        job_id,
        min("at") AS "at",
        arg_min(moment, "at") AS moment,
        arg_min(span_id, "at") AS span_id
    FROM counted
    ANTI JOIN held USING (schedule, job_id)
    GROUP BY schedule, job_id
    HAVING bool_and(span_id IS NOT NULL)
),
moves AS (
    SELECT schedule, job_id, moment, happened, TRUE AS back
    FROM returns
    UNION ALL BY NAME
    -- What is held may have been let go of without its work.
    SELECT schedule, job_id, moment, happened, FALSE AS back
    FROM steps
    WHERE happened IS DISTINCT FROM FALSE
        AND (event = 'fail' OR (event = 'ack' AND reason IS NOT DISTINCT FROM 'early'))
),
outdated AS (
    SELECT DISTINCT told.schedule, told.job_id
    FROM told
    JOIN moves USING (schedule, job_id)
    WHERE (moves.back OR told.state IS NOT NULL)
        AND NOT coalesce(moves.happened AND precedes(moves.moment, told.moment), FALSE)
)
SELECT
    told.*,
    precedes(endings.moment, told.moment) AS after_ending,
    endings.moment IS NOT NULL AS ended,
    outdated.job_id IS NULL AS current
FROM told
LEFT JOIN endings USING (schedule, job_id)
LEFT JOIN outdated USING (schedule, job_id)
