-- Jobs whose executions have to be looked at: run more than once, never completed, or not wholly written.
SELECT *
FROM jobs
WHERE runs > 1
    OR NOT completed
    OR coalesce(applied < effect_total, TRUE)
