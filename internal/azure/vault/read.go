package vault

import (
	"context"
	"errors"
	"math"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"keymount/internal/azure/identity"
	"keymount/internal/provider"
)

// read returns one object, decoded.
func read[T any](ctx context.Context, c *Client, who *identity.Credential, o object,
	decode func(object, []byte) (T, int, error)) (T, error) {
	return shared(ctx, c, who, o, func(ctx context.Context, k *call) (value T, size int, err error) {
		body, err := c.send(ctx, k, k.object.address(c.cfg.APIVersion))
		if err != nil {
			return value, 0, err
		}
		value, size, err = decode(k.object, body)
		if err != nil {
			return value, 0, k.object.malformed(err)
		}
		return value, size, nil
	})
}

// shared returns what fetch returns, for this caller or another one of the same identity.
//
// The caller must have a token before it may share: so a credential that is refused fails here, alone, and an identity
// whose access token has ended shares nothing until it is renewed.
func shared[T any](ctx context.Context, c *Client, who *identity.Credential, o object,
	fetch func(context.Context, *call) (T, int, error)) (T, error) {
	var none T
	o, bad := o.checked()
	if bad != nil {
		return none, bad
	}
	if who == nil {
		return none, &provider.Error{Kind: provider.Internal, Object: o.id(), Message: o.String() + ": nobody is asking"}
	}
	key, err := who.Key(ctx)
	if err == nil {
		_, err = who.Token(ctx)
	}
	if err != nil {
		return none, err
	}
	v, err := c.shares.do(ctx, shareKey{key, o}, who, func(ctx context.Context, r *sharedRead) (any, int, error) {
		ctx, cancel := context.WithTimeout(ctx, c.cfg.ReadTimeout)
		defer cancel()
		return fetch(ctx, &call{client: c, who: who, key: key, object: o, read: r})
	})
	if err != nil {
		return none, err
	}
	return v.(T), nil
}

const (
	// maxTries bounds the tries of a request that is not answered, or by an error of the vault's own. Refusals for the
	// sake of load are retried until the read's time is over.
	maxTries = 5
	// maxNameTries bounds the tries when the host's name has no address: mostly a vault's name that is misspelt.
	maxNameTries = 2
)

// A call is one read on its way through the pipeline. Only the read's own goroutine uses it.
type call struct {
	client *Client
	who    *identity.Credential
	key    identity.Key
	object object
	read   *sharedRead
	// page counts the pages of a list; the read started when the first was asked for.
	page     int
	tries    int
	renewed  bool // a token that the vault rejected has been replaced once
	deadline time.Time
}

// send returns the body of the answer to one GET request.
func (c *Client) send(ctx context.Context, k *call, address string) ([]byte, error) {
	k.tries = 0
	k.deadline, _ = ctx.Deadline()
	retry := policy.RetryOptions{MaxRetries: 1000, RetryDelay: firstDelay, MaxRetryDelay: maxDelay, ShouldRetry: k.again}
	req, err := runtime.NewRequest(policy.WithRetryOptions(ctx, retry), http.MethodGet, address)
	if err != nil {
		return nil, k.object.malformed(errors.New("its link to the next page is not an address"))
	}
	req.Raw().Header.Set("Accept", "application/json")
	req.Raw().Header.Set("User-Agent", c.cfg.UserAgent)
	req.SetOperationValue(k)
	resp, err := c.pipeline.Do(req)
	if err != nil {
		return nil, k.unanswered(ctx, err)
	}
	body, err := runtime.Payload(resp) // bodyDownloadPolicy has read it already
	if err != nil {
		return nil, k.unanswered(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, k.object.refusal(resp, body)
	}
	return body, nil
}

// again says whether the request is to be tried again, after the delay that the SDK's retry policy chooses: what the
// answer asks for, else twice the last one.
func (k *call) again(resp *http.Response, err error) bool {
	k.tries++
	most, trouble := 0, (*provider.Error)(nil)
	if err != nil {
		most, trouble = k.patience(err), k.object.unreachable(err)
	} else {
		body, _ := runtime.Payload(resp)
		switch {
		case resp.StatusCode == http.StatusTooManyRequests:
			most = math.MaxInt
		case resp.StatusCode >= 500 || resp.StatusCode == http.StatusRequestTimeout:
			most = maxTries
		default:
			return false
		}
		trouble = k.object.refusal(resp, body)
	}
	if k.tries >= most || !k.deadline.IsZero() && time.Until(k.deadline) <= trouble.RetryAfter {
		return false
	}
	k.client.shares.waiting(k.read, trouble, k.page == 0)
	return true
}

// callOf returns the call that a request belongs to.
func callOf(req *policy.Request) *call {
	var k *call
	req.OperationValue(&k)
	return k
}

// bearerPolicy puts the identity's token on each try, and replaces a token that the vault rejects once.
type bearerPolicy struct{}

func (bearerPolicy) Do(req *policy.Request) (*http.Response, error) {
	k, ctx := callOf(req), req.Raw().Context()
	token, err := k.who.Token(ctx)
	if err != nil {
		return nil, ofCredential(ctx, err)
	}
	authorize(req, token)
	resp, err := req.Next()
	if err != nil || resp.StatusCode != http.StatusUnauthorized || k.renewed {
		return resp, err
	}
	k.renewed = true
	fresh, err := k.who.Renew(ctx, token)
	if err != nil {
		return nil, ofCredential(ctx, err)
	}
	if fresh.Value == token.Value {
		return resp, nil
	}
	authorize(req, fresh)
	return req.Next()
}

func authorize(req *policy.Request, token identity.AccessToken) {
	req.Raw().Header.Set("Authorization", "Bearer "+token.Value.Reveal())
}

// A credentialError is the failure of the credential that pays for a read. It says nothing about the others who wait.
type credentialError struct{ error }

// NonRetriable marks the error for the SDK's retry policy: the token's own requests have been retried.
func (credentialError) NonRetriable() {}

// A finalError is passed on by the SDK's retry policy at once.
type finalError struct{ error }

// NonRetriable marks the error for the SDK's retry policy.
func (finalError) NonRetriable() {}

func (e finalError) Unwrap() error { return e.error }

func ofCredential(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case identity.ConcernsCredential(err):
		return credentialError{err}
	}
	return finalError{err}
}

// slotPolicy waits for the vault's turn, and bounds the try in time from then on.
type slotPolicy struct {
	timeout time.Duration
}

func (p slotPolicy) Do(req *policy.Request) (resp *http.Response, err error) {
	k, ctx := callOf(req), req.Raw().Context()
	l := k.client.limits
	if err := l.enter(ctx, k.object.vault, k.key); err != nil {
		return nil, err
	}
	sent := time.Now()
	k.client.requests.Add(1)
	defer func() {
		outcome, after := neither, time.Duration(0)
		switch {
		case err != nil || resp == nil:
		case resp.StatusCode == http.StatusTooManyRequests:
			outcome, after = refused, identity.RetryAfter(resp.Header, time.Now())
			k.client.refusals.Add(1)
		case resp.StatusCode < 500:
			outcome = served
		}
		l.leave(k.object.vault, outcome, sent, after)
	}()
	if k.page == 0 {
		k.client.shares.sending(k.read)
	}
	try, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	return req.Clone(try).Next() // reads the whole body
}
