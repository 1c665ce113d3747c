-- Jobs that have to be looked at: run or enqueued more than once, not completed by their work, or not wholly written.
SELECT *
FROM jobs
WHERE runs > 1
    OR enqueues > 1
    OR NOT worked
    OR coalesce(applied < effect_total, TRUE)
