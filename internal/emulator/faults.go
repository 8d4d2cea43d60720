package emulator

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Actions of a fault.
const (
	ActStatus        = "status"         // answer Status, with the error body of the service, or Body
	ActThrottle      = "throttle"       // 429, with RetryAfter if set
	ActRate          = "rate"           // 429 for what exceeds PerSecond
	ActHang          = "hang"           // no answer until the client goes away or the fault is cleared; then the usual answer
	ActCut           = "cut"            // close the connection without an answer
	ActSlow          = "slow"           // the usual answer, Chunk bytes at a time with Pause between
	ActHTML          = "html"           // an HTML error page, status 400 unless Status is set
	ActTypes         = "types"          // the usual answer with numbers for strings and the reverse
	ActMissing       = "missing"        // the usual answer without the member Member
	ActOversize      = "oversize"       // the usual answer with Size bytes of padding in a member
	ActUnauthorized  = "unauthorized"   // 401 AKV10046: the signing key could not be resolved
	ActForbidden     = "forbidden"      // 403 ForbiddenByRbac, as while a role assignment spreads
	ActFirewall      = "firewall"       // 403 ForbiddenByFirewall
	ActEmptyPage     = "empty-page"     // an empty page with a nextLink to the page asked for
	ActForeignLink   = "foreign-link"   // pages with a nextLink to the host Host2
	ActEndlessPages  = "endless-pages"  // every page has a nextLink to itself
	ActBareChallenge = "bare-challenge" // 401 with a challenge whose authorization has no path
	ActBody          = "body"           // answer Status (200) with Body as it is
)

func actions() []string {
	return []string{ActStatus, ActThrottle, ActRate, ActHang, ActCut, ActSlow, ActHTML, ActTypes, ActMissing, ActOversize, ActUnauthorized,
		ActForbidden, ActFirewall, ActEmptyPage, ActForeignLink, ActEndlessPages, ActBareChallenge, ActBody}
}

// A Fault disturbs the requests that it matches.
type Fault struct {
	// Do is one of the actions.
	Do string `json:"do"`
	// Kind limits it to a kind or group of requests; Host to a host name; Path to paths that begin so.
	Kind string `json:"kind,omitempty"`
	Host string `json:"host,omitempty"`
	Path string `json:"path,omitempty"`
	// Skip requests that match go through first; then Times are hit (0: all, until the fault is cleared).
	Skip  int `json:"skip,omitempty"`
	Times int `json:"times,omitempty"`

	Status     int           `json:"status,omitempty"`
	RetryAfter string        `json:"retryAfter,omitempty"` // as the header is to be: seconds or an HTTP date
	PerSecond  int           `json:"perSecond,omitempty"`
	Chunk      int           `json:"chunk,omitempty"` // bytes, 16 if 0
	Pause      time.Duration `json:"pause,omitempty"`
	Size       int           `json:"size,omitempty"` // bytes, 2 MiB if 0
	Member     string        `json:"member,omitempty"`
	Body       string        `json:"body,omitempty"`
	Host2      string        `json:"host2,omitempty"`
}

// maxPadding bounds what a fault may send, in bytes.
const maxPadding = 64 << 20

func (f *Fault) check() error {
	switch {
	case !slices.Contains(actions(), f.Do):
		return fmt.Errorf("unknown fault %q: use one of %s", f.Do, strings.Join(actions(), ", "))
	case f.Skip < 0 || f.Times < 0 || f.Pause < 0 || f.Chunk < 0 || f.PerSecond < 0 || f.Size < 0:
		return errors.New("numbers of a fault are not negative")
	case f.Size > maxPadding || len(f.Body) > maxPadding:
		return fmt.Errorf("a fault sends at most %d bytes", maxPadding)
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("status %d is not between 200 and 599", f.Status)
	case f.Do == ActStatus && f.Status == 0:
		return errors.New("the fault status needs a status, as in 503")
	case f.Do == ActRate && f.PerSecond == 0:
		return errors.New("the fault rate needs perSecond")
	case f.Do == ActMissing && f.Member == "":
		return errors.New("the fault missing needs a member, as in value")
	case strings.ContainsAny(f.RetryAfter, "\r\n"):
		return errors.New("retryAfter is one line")
	}
	return checkKind(f.Kind)
}

// An armedFault is a fault with what has happened to it.
type armedFault struct {
	Fault
	id      int
	seen    int
	hit     int
	cleared chan struct{}
	second  int64
	used    int
}

type faultBox struct {
	mu     sync.Mutex
	nextID int
	armed  []*armedFault
	delay  map[string]time.Duration // by group
}

func (b *faultBox) init() { b.delay = map[string]time.Duration{} }

func (b *faultBox) latency(group string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.delay[group]
}

// SetLatency makes every answer of a group ("vault", "token" or "discovery") take at least d.
func (s *Server) SetLatency(group string, d time.Duration) error {
	if !slices.Contains(groups(), group) {
		return fmt.Errorf("unknown group %q: use one of %s", group, strings.Join(groups(), ", "))
	}
	if d < 0 || d > time.Hour {
		return fmt.Errorf("latency %s is not between 0 and 1 h", d)
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.delay[group] = d
	return nil
}

// SetFault arms a fault and returns its number for ClearFault. Of several faults that match, the one armed first acts.
func (s *Server) SetFault(f Fault) (int, error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	b := &s.faults
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nextID++
	b.armed = append(b.armed, &armedFault{Fault: f, id: b.nextID, cleared: make(chan struct{})})
	return b.nextID, nil
}

// ClearFault disarms a fault; 0 disarms all. Requests that hang by it are answered. It reports whether there was one.
func (s *Server) ClearFault(id int) bool {
	b := &s.faults
	b.mu.Lock()
	defer b.mu.Unlock()
	found := false
	b.armed = slices.DeleteFunc(b.armed, func(f *armedFault) bool {
		if id != 0 && f.id != id {
			return false
		}
		found = true
		close(f.cleared)
		return true
	})
	return found
}

// take returns the fault that is to act on the call, and counts it.
func (b *faultBox) take(c *call) *armedFault {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.armed {
		switch {
		case f.Kind != "" && f.Kind != c.kind && f.Kind != c.group():
			continue
		case f.Host != "" && hostName(f.Host) != c.host:
			continue
		case !strings.HasPrefix(c.r.URL.Path, f.Path):
			continue
		case f.Times > 0 && f.hit >= f.Times:
			continue
		}
		f.seen++
		if f.seen <= f.Skip || f.Do == ActRate && f.allows(c.s.now()) {
			continue
		}
		f.hit++
		return f
	}
	return nil
}

// allows counts requests of one second.
func (f *armedFault) allows(now time.Time) bool {
	if s := now.Unix(); s != f.second {
		f.second, f.used = s, 0
	}
	f.used++
	return f.used <= f.PerSecond
}

// before answers in place of the emulator; done is false for faults that change the usual answer.
func (f *armedFault) before(c *call) (resp *response, done bool) {
	switch f.Do {
	case ActHang:
		select {
		case <-c.r.Context().Done():
			return nil, true
		case <-f.cleared:
			return nil, false
		}
	case ActCut:
		return nil, true
	case ActThrottle, ActRate:
		return f.throttled(c), true
	case ActStatus:
		return f.status(c), true
	case ActHTML:
		r := textResponse(orStatus(f.Status, http.StatusBadRequest), "<!DOCTYPE html>\r\n<html><head><title>Runtime Error</title></head><body><h1>Server Error in '/' Application.</h1></body></html>")
		r.header.Set("Content-Type", "text/html; charset=utf-8")
		return r, true
	case ActBody:
		r := textResponse(orStatus(f.Status, http.StatusOK), "")
		r.body = []byte(f.Body)
		r.header.Set("Content-Type", "application/json; charset=utf-8")
		return r, true
	}
	if c.site.vault == nil {
		return nil, false
	}
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	return f.refused(c)
}

// refused answers 401 and 403 in place of a vault. The caller holds the lock of the vault's data.
func (f *armedFault) refused(c *call) (resp *response, done bool) {
	switch f.Do {
	case ActUnauthorized:
		return c.challenge("AKV10046: Unable to resolve the key used for signature validation."), true
	case ActBareChallenge:
		r := c.challenge("AKV10000: Request is missing a Bearer or PoP token.")
		r.header.Set("WWW-Authenticate", `Bearer authorization="https://`+c.site.vault.cloud.Authority+`", resource="`+c.site.vault.cloud.Resource+`"`)
		return r, true
	case ActForbidden:
		return c.forbidden(), true
	case ActFirewall:
		return errorResponse(http.StatusForbidden, "Forbidden", "ForbiddenByFirewall", "Client address is not authorized and caller is not a trusted service.\r\nClient address: 127.0.0.1\r\nCaller: appid=unknown\r\nVault: "+c.site.vault.name+";location="+c.site.vault.region), true
	}
	return nil, false
}

func orStatus(status, fallback int) int {
	if status == 0 {
		return fallback
	}
	return status
}

func (f *armedFault) throttled(c *call) *response {
	if c.site.vault == nil {
		return f.withRetryAfter(c.stsErrorStatus(http.StatusTooManyRequests, "temporarily_unavailable", 90055, "The tenant is throttled: too many requests."))
	}
	return f.withRetryAfter(errorResponse(http.StatusTooManyRequests, "Throttled", "", "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"))
}

func (f *armedFault) status(c *call) *response {
	var r *response
	switch {
	case f.Body != "":
		r = textResponse(f.Status, f.Body)
	case c.site.authority != nil:
		r = c.stsErrorStatus(f.Status, "server_error", 90033, "A transient error has occurred. Please try again.")
	default:
		code := strings.ReplaceAll(http.StatusText(f.Status), " ", "")
		r = errorResponse(f.Status, code, "", "The emulator was told to answer "+strconv.Itoa(f.Status)+".")
	}
	return f.withRetryAfter(r)
}

func (f *armedFault) withRetryAfter(r *response) *response {
	if f.RetryAfter != "" {
		r.header.Set("Retry-After", f.RetryAfter)
	}
	return r
}
