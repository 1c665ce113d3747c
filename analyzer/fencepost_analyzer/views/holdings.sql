-- What inventories say of each job: the one that lists it, else the last one of its own queue, in which it is absent
-- (`state` NULL). A job without a queue is absent only from all of them, so the earliest counts; an inventory without
-- a queue speaks for those queues that have none of their own. `after_ending`: taken after the job was let go of.
WITH own AS (
    SELECT jobs.schedule, jobs.job_id, inventories.at, inventories.moment, inventories.span_id
    FROM jobs
    JOIN inventories USING (schedule, queue)
    UNION ALL
    SELECT jobs.schedule, jobs.job_id, general.at, general.moment, general.span_id
    FROM jobs
    ANTI JOIN inventories USING (schedule, queue)
    JOIN (
        SELECT
            schedule,
            arg_min(queue IS NULL, "at") AS nameless,
            min("at") AS "at",
            arg_min(moment, "at") AS moment,
            arg_min(span_id, "at") AS span_id
        FROM inventories
        GROUP BY schedule, queue IS NULL
    ) AS general
        ON jobs.schedule = general.schedule
        AND (general.nameless OR jobs.queue IS NULL)
),
told AS (
    SELECT schedule, job_id, "at", moment, span_id, state
    FROM held
    UNION ALL BY NAME
    SELECT own.*
    FROM own
    ANTI JOIN held USING (schedule, job_id)
)
SELECT
    told.*,
    precedes(endings.moment, told.moment) AS after_ending,
    endings.moment IS NOT NULL AS ended
FROM told
LEFT JOIN endings USING (schedule, job_id)
