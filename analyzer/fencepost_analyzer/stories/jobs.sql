-- The jobs to tell of: those in $first before the others, then in the order in which they were first heard of.
SELECT job_id, any_value(queue) AS queue, count(*) OVER () AS jobs
FROM events
WHERE job_id IS NOT NULL
GROUP BY job_id
ORDER BY list_contains($first::VARCHAR[], job_id) DESC, min("at") NULLS LAST, job_id
LIMIT $most
