-- The jobs to tell of: those in $first before the others and in its order, then in the order in which they were first heard of.
SELECT job_id, any_value(queue) AS queue, count(*) OVER () AS jobs
FROM events
WHERE job_id IS NOT NULL
GROUP BY job_id
ORDER BY list_position($first::VARCHAR[], job_id) NULLS LAST, min("at") NULLS LAST, job_id
LIMIT $most
