-- id: GOAL-001
-- title: no job given up
-- severity: medium
-- principle: P4
-- polarity: +
-- needs: inventory
-- claim: No job was buried or left: a policy that does nothing breaks nothing, but nobody wants it.
SELECT
    schedule,
    job_id,
    "at",
    [span_id] AS span_ids,
    CASE
        WHEN reason = 'dead' THEN printf('Job %s was given up: its attempts were used up before it was done.', job_id)
        ELSE printf('Job %s was left: it is not done, and nobody is left to do it.', job_id)
    END AS sentence
FROM events
WHERE event = 'inventory'
    AND reason IN ('dead', 'leased', 'ready')
