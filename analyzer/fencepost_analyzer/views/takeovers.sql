-- Writes and settlements of executions that a newer lease of the same job had replaced. `overtaken`: TRUE = the newer
-- lease was granted before, NULL = nobody can tell. Newer by token, which each queue numbers for itself; where a token or
-- its queue is missing, by the order in which the two leases were granted. In another queue it may be another job.
-- A lease that nobody knows was granted may have been, at any time since it was asked for.
WITH leased AS (
    SELECT schedule, job_id, leases
    FROM jobs
    SEMI JOIN leases USING (schedule, job_id)
),
actions AS (
    SELECT steps.*, leased.leases
    FROM steps
    JOIN leased USING (schedule, job_id)
    WHERE steps.happened IS DISTINCT FROM FALSE
        AND steps.event IN ('write', 'ack', 'fail', 'dead_letter', 'retry')
),
judged AS (
    SELECT
        action.schedule, action.event, action.job_id, action.execution_id, action.attempt, action.token,
        action.worker_id, action.effect_key, action.at, action.span_id, action.happened,
        rival.worker_id AS rival_worker_id, rival.attempt AS rival_attempt, rival.token AS rival_token,
        rival.at AS rival_at, rival.span_id AS rival_span_id,
        CASE
            WHEN rival.granted THEN
                CASE
                    WHEN action.queue = rival.queue AND action.token IS NOT NULL AND rival.token IS NOT NULL
                        THEN rival.token > action.token
                    WHEN own.execution_id IS NOT NULL THEN precedes(own.moment, rival.moment)
                END
                AND precedes(rival.moment, action.moment)
                AND CASE WHEN action.queue <> rival.queue THEN NULL ELSE TRUE END
            WHEN (action.queue = rival.queue AND rival.token <= action.token) OR precedes(action.moment, rival.moment)
                THEN FALSE
        END AS overtaken
    FROM actions AS action
    JOIN leases AS rival
        ON action.schedule = rival.schedule
        AND action.job_id = rival.job_id
        -- What does not say whose it is belongs to the only lease, unless it came from another worker.
        AND coalesce(
            action.execution_id <> rival.execution_id,
            action.leases > CASE WHEN rival.granted THEN 1 ELSE 0 END
                OR coalesce(action.worker_id <> rival.worker_id, FALSE)
        )
    LEFT JOIN (FROM leases WHERE granted) AS own
        ON action.schedule = own.schedule
        AND action.execution_id = own.execution_id
)
SELECT DISTINCT ON (schedule, event, span_id, effect_key) *
FROM judged
WHERE overtaken IS DISTINCT FROM FALSE
ORDER BY schedule, event, span_id, effect_key, overtaken DESC NULLS LAST, rival_at, rival_span_id
