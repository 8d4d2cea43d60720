package provider

// A Meter is a Provider that counts what it does.
type Meter interface {
	Provider
	// Measure may be called at any time and does not wait for fetches.
	Measure() Measures
}

// Measures are counts since the process began.
type Measures struct {
	// Reads are requests that were sent to the source for objects, tries and pages included.
	Reads uint64
	// SharedReads are reads that needed no request, because another read of the same identity served them.
	SharedReads uint64
	// Throttled are requests that the source refused because there were too many.
	Throttled uint64
	// Tokens are access tokens that were fetched, TokenFailures fetches that failed.
	Tokens, TokenFailures uint64
}
