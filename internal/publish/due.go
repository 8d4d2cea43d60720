package publish

import (
	"time"

	"keymount/internal/provider"
	"keymount/internal/volume/registry"
)

// firstRetry is how long after a failed refresh the next one is due; it doubles from failure to failure.
const firstRetry = 10 * time.Second

// Due says when a whole volume is refreshed by a Publish. The zero value: never.
type Due struct {
	// Every is how old the last successful refresh may become. 0 switches refreshing off, whatever Mark says.
	Every time.Duration
	// Mark is the class's wish to be refreshed now: the volume is due when it differs from that of the last success. It is
	// kept in the record, so whoever sets it bounds it.
	Mark string
	// MarkSeen is when this node learned of Mark. A refresh that Mark asks for is served by no read that began before: its author has
	// changed something in the source, and asks for that.
	MarkSeen time.Time
	// MarkChanged says that MarkSeen is when Mark was set, not when this node first needed the class: a first mount, which fulfils the wish,
	// is then served by no older read either.
	MarkChanged bool
}

// after says whether a volume with this record is due at the time now. The clock may have jumped since the record was
// made: what lies in the future, or further ahead than anything is ever planned, counts for nothing.
func (d Due) after(rec *registry.Record, now time.Time) bool {
	if d.Every <= 0 {
		return false
	}
	if rec.LastFailure != nil {
		return true // its pause is over
	}
	age := now.Sub(rec.LastSuccess)
	return age < 0 || age >= d.Every || rec.Mark != d.Mark
}

// rests says whether the last attempt failed so recently that the next is not yet made. A new wish does not cut that short:
// a vault that throttles would be asked by every pod at once.
func (d Due) rests(rec *registry.Record, now time.Time) bool {
	return rec.LastFailure != nil && now.Before(rec.NextDue) &&
		!now.Before(rec.LastAttempt) && rec.NextDue.Sub(now) <= longestPause(d.Every)
}

// backoff is how long to leave a volume alone after so many failures in a row, the source's own wish included.
func backoff(failures int, every time.Duration, errs provider.Errors) time.Duration {
	pause := firstRetry
	for range failures - 1 {
		if pause *= 2; pause >= longestPause(every) {
			break
		}
	}
	for _, e := range errs {
		pause = max(pause, e.RetryAfter)
	}
	return min(pause, longestPause(every))
}

// longestPause bounds a pause after failures: a volume is tried at its interval at the latest, but at least every half hour
// and not more often than the first retry.
func longestPause(every time.Duration) time.Duration {
	return max(firstRetry, min(every, 30*time.Minute))
}
