-- The last accepted acknowledgement or burial of each job: from then on the queue had let go of it.
SELECT schedule, job_id, arg_max(moment, "at") AS moment, max("at") AS at
FROM moments
WHERE event IN ('ack', 'dead_letter')
    AND outcome = 'ok'
GROUP BY schedule, job_id
