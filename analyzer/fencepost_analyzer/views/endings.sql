-- The last accepted acknowledgement or burial of each suspect, if it was final: from then on the queue had let go.
SELECT schedule, job_id, any_value("at") AS "at", any_value(moment) AS moment
FROM (
    FROM partings
    QUALIFY rank() OVER (PARTITION BY schedule, job_id ORDER BY "at" DESC) = 1
)
GROUP BY schedule, job_id
HAVING bool_and(final)
