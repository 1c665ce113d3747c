-- Was a clock set while it read something from `since` to `until`? Where none was, this is a constant.
CREATE MACRO clock_was_set(since, until) AS CASE
    WHEN getvariable('resets') IS NULL THEN FALSE
    ELSE len(list_filter(getvariable('resets'), lambda reset: since <= reset.until AND until >= reset.since)) > 0
END;

-- Was a clock set to and fro over both readings, so that they do not say which came first?
CREATE MACRO set_over(a, a_by, b, b_by) AS CASE
    WHEN getvariable('resets') IS NULL THEN FALSE
    ELSE len(list_filter(
        getvariable('resets'),
        lambda reset: a <= reset.until AND a_by >= reset.since AND b <= reset.until AND b_by >= reset.since
    )) > 0
END;

-- Which of two moments of one clock came first? NULL where they touch, or where the clock was set meanwhile.
CREATE MACRO clock_says(a, b) AS CASE
    WHEN set_over((a).at, (a).by, (b).at, (b).by) THEN NULL
    WHEN (a).by < (b).at THEN TRUE
    WHEN (b).by < (a).at THEN FALSE
END;

-- Which of two moments did one process tell first, the whole span of the one before that of the other?
CREATE MACRO process_says(a, b) AS CASE
    WHEN (a).producer_end_seq < (b).producer_seq THEN TRUE
    WHEN (b).producer_end_seq < (a).producer_seq THEN FALSE
END;

-- Did moment a come before moment b? NULL = nobody can tell.
-- The queue's own order first; then clocks, but only those that tick on one known host, and not against the order in
-- which one process told its spans: then one of the two was set back, or told late. Where a clock leaves a tie, or was
-- set, that order decides. Clocks of two hosts prove nothing.
CREATE MACRO precedes(a, b) AS CASE
    WHEN (a).position IS NOT NULL AND (b).position IS NOT NULL THEN (a).position < (b).position
    WHEN (a).producer = (b).producer THEN CASE
        WHEN set_over((a).at, (a).by, (b).at, (b).by) THEN process_says(a, b)
        WHEN (a).at = (b).at AND (a).by = (b).by AND (a).by = (a).at
            THEN coalesce((a).producer_seq, (a).producer_end_seq) < coalesce((b).producer_seq, (b).producer_end_seq)
        WHEN coalesce(clock_says(a, b) = ((a).producer_seq < (b).producer_seq), TRUE) THEN clock_says(a, b)
    END
    WHEN (a).host = (b).host THEN clock_says(a, b)
END;

-- Was an event answered by yes, or may it have been? Not if it was refused, its reply was lost or its span never ended. A
-- refusal as a duplicate says yes to what was asked before.
CREATE MACRO answered(outcome, reason, producer_seq, producer_end_seq) AS CASE coalesce(outcome, 'unknown')
    WHEN 'ok' THEN TRUE
    WHEN 'failed' THEN coalesce(reason = 'duplicate', FALSE)
    ELSE reason IS DISTINCT FROM 'ConnectionLost' AND (producer_seq IS NULL OR producer_end_seq IS NOT NULL)
END;

-- Were two moments told by one clock: of one known host, or of one process?
CREATE MACRO one_clock(a, b) AS coalesce((a).host = (b).host, FALSE) OR coalesce((a).producer = (b).producer, FALSE);

-- Did moment b, by the clock of moment a, come no later than `due`?
CREATE MACRO in_time(a, b, due) AS (b).by <= due AND one_clock(a, b) AND NOT clock_was_set((a).at, (b).by);

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
