-- Did moment a come before moment b? NULL = nobody can tell.
-- The queue's own order first; then clocks, but only those that tick on one known host; then, for a tie or a host
-- that is not known, a process's own order of spans. Clocks of two hosts prove nothing.
CREATE MACRO precedes(a, b) AS CASE
    WHEN (a).position IS NOT NULL AND (b).position IS NOT NULL THEN (a).position < (b).position
    WHEN (a).host = (b).host AND (a).at <> (b).at THEN (a).at < (b).at
    WHEN (a).producer = (b).producer THEN (a).producer_seq < (b).producer_seq
END;

-- Was an event answered by yes, or may it have been? Not if it was refused, its reply was lost or its span never ended. A
-- refusal as a duplicate says yes to what was asked before.
CREATE MACRO answered(outcome, reason, producer_seq, producer_end_seq) AS CASE coalesce(outcome, 'unknown')
    WHEN 'ok' THEN TRUE
    WHEN 'failed' THEN coalesce(reason = 'duplicate', FALSE)
    ELSE reason IS DISTINCT FROM 'ConnectionLost' AND (producer_seq IS NULL OR producer_end_seq IS NOT NULL)
END;

-- Nanoseconds as a person reads them.
CREATE MACRO how_long(ns) AS CASE
    WHEN ns IS NULL THEN 'an unknown time'
    WHEN abs(ns) < 1_000_000 THEN printf('%.1f µs', ns / 1e3)
    WHEN abs(ns) < 1_000_000_000 THEN printf('%.1f ms', ns / 1e6)
    WHEN abs(ns) < 120_000_000_000 THEN printf('%.1f s', ns / 1e9)
    ELSE printf('%.1f min', ns / 6e10)
END;

-- "3.2 s after", or just "after" where clocks disagree with the order that the queue proves.
CREATE MACRO how_long_after(ns) AS CASE WHEN ns > 0 THEN how_long(ns) || ' after' ELSE 'after' END;

-- "worker w1 (attempt 2)": who acted, as far as it is known.
CREATE MACRO actor(worker_id, attempt) AS
    'worker ' || coalesce(worker_id, '(unnamed)') || coalesce(' (attempt ' || attempt || ')', '');
