-- Where a process saw its clock set: from `since` to `until`, in readings of the clock. Two readings of which both lie in
-- there do not say which came first.
SET VARIABLE resets = (
    SELECT list({
        'since': coalesce(since_unix_nano, -9_223_372_036_854_775_807),
        'until': coalesce(until_unix_nano, 9_223_372_036_854_775_807)
    })
    FROM gaps
    WHERE cause = 'clock_set'
)
