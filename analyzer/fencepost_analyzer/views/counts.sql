SELECT id, schedule, count(*) FILTER (verdict = 'violated'), count(*) FILTER (verdict = 'unknown'), list(DISTINCT missing)
FROM judged
GROUP BY id, schedule
