-- Accepted acknowledgements and burials of the suspects. `final`: the queue let go of the job for good, for whatever
-- brings a job back came before. `undone`: something came after and brought it back. Neither: nobody can tell.
-- Before is also what one transaction told together with the parting, and, where nothing else tells, the lease that it
-- ends and the leases under an older token of the queue.
WITH met AS (
    SELECT
        parting.*,
        CASE
            WHEN returned.event IS NULL THEN TRUE
            WHEN returned.event IN ('retry', 'reclaim')
                AND returned.execution_id = parting.execution_id
                AND (
                    returned.position = parting.position
                    OR (coalesce(returned.position, parting.position) IS NULL AND returned.at = parting.at)
                )
                THEN TRUE
            WHEN returned.happened IS NULL THEN NULL
            ELSE coalesce(
                precedes(returned.moment, parting.moment),
                CASE
                    WHEN returned.event = 'lease' AND returned.execution_id = parting.execution_id THEN TRUE
                    WHEN returned.event = 'lease' AND returned.queue = parting.queue AND returned.token < parting.token
                        THEN TRUE
                END
            )
        END AS before,
        returned.happened AND precedes(parting.moment, returned.moment) AS after
    FROM (
        SELECT schedule, job_id, event, execution_id, token, queue, "at", position, moment, span_id
        FROM moments
        SEMI JOIN suspects USING (schedule, job_id)
        WHERE event IN ('ack', 'dead_letter')
            AND outcome = 'ok'
    ) AS parting
    LEFT JOIN returns AS returned USING (schedule, job_id)
)
SELECT
    schedule, job_id, event, execution_id, "at", span_id,
    any_value(moment) AS moment,
    bool_and(coalesce(before, FALSE)) AS final,
    bool_or(coalesce(after, FALSE)) AS undone
FROM met
GROUP BY schedule, job_id, event, execution_id, "at", span_id
