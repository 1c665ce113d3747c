-- What happened to the jobs in $jobs, moment by moment. A run is told twice, as it begins and as it ends, and what
-- befell a worker is told to every job whose run it was in the middle of.
WITH wanted AS (
    SELECT unnest($jobs::VARCHAR[]) AS job_id
),
own AS (
    SELECT *
    FROM events
    SEMI JOIN wanted USING (job_id)
),
ends AS (
    SELECT * REPLACE ('end' AS event, until AS "at", producer_end_seq AS producer_seq)
    FROM own
    WHERE event = 'run'
        AND until IS NOT NULL
),
befallen AS (
    SELECT *
    FROM events
    WHERE event IN ('crash', 'pause', 'resume')
),
-- A run that never ended was over when its worker crashed.
runs AS (
    SELECT own.*, min(crash.at) AS crashed_at
    FROM own
    LEFT JOIN befallen AS crash
        ON own.worker_id = crash.worker_id
        AND own.at <= crash.at
        AND crash.event = 'crash'
    WHERE own.event = 'run'
    GROUP BY ALL
),
shared AS (
    SELECT DISTINCT befallen.* REPLACE (runs.job_id AS job_id, runs.queue AS queue, runs.attempt AS attempt)
    FROM befallen
    JOIN runs
        ON befallen.worker_id = runs.worker_id
        AND befallen.at >= runs.at
        AND befallen.at <= coalesce(runs.until, runs.crashed_at, befallen.at)
)
SELECT * FROM own
UNION ALL BY NAME
SELECT * FROM ends
UNION ALL BY NAME
SELECT * FROM shared
ORDER BY job_id, "at" NULLS LAST, position NULLS LAST, producer, producer_seq, event
