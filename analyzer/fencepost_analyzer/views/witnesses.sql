-- The shortest evidence first: violations before doubts, few spans before many.
SELECT id, verdict, job_id, "at", span_ids, sentence, doubt
FROM judged
QUALIFY row_number() OVER (
    PARTITION BY id
    ORDER BY verdict = 'violated' DESC, len(span_ids), "at", job_id, sentence
) <= $most
ORDER BY id, verdict = 'violated' DESC, len(span_ids), "at", job_id, sentence
