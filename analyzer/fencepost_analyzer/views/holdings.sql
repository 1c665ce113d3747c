-- One row for each job of interest and the last inventory of its queue: what that inventory said of the job
-- (`state` ready, leased, dead, or NULL = absent) and whether it was taken after the job had been let go of.
SELECT
    jobs.schedule,
    jobs.job_id,
    inventories.at,
    inventories.moment,
    inventories.span_id,
    held.state,
    precedes(endings.moment, inventories.moment) AS after_ending,
    endings.moment IS NOT NULL AS ended
FROM jobs
JOIN inventories
    ON jobs.schedule = inventories.schedule
    AND coalesce(jobs.queue = inventories.queue, TRUE)
LEFT JOIN held
    ON jobs.schedule = held.schedule
    AND jobs.job_id = held.job_id
    AND inventories.span_id = held.span_id
LEFT JOIN endings
    ON jobs.schedule = endings.schedule
    AND jobs.job_id = endings.job_id
