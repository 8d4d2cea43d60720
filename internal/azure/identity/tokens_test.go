package identity

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/provider"
)

// A bank hands out tokens to credentials of one identity and counts how often it is asked.
type bank struct {
	tokens  *tokens
	fetches atomic.Int64
	// answer decides what a fetch by the holder of a proof gives.
	answer func(ctx context.Context, proof byte) (AccessToken, error)
}

func newBank() *bank {
	b := &bank{tokens: newTokens(Config{})}
	b.answer = func(context.Context, byte) (AccessToken, error) { return b.hour(), nil }
	return b
}

// kept is of how many identities anything is kept.
func (b *bank) kept() int {
	b.tokens.mu.Lock()
	defer b.tokens.mu.Unlock()
	return len(b.tokens.sessions)
}

// hour is a fresh token for an hour.
func (b *bank) hour() AccessToken {
	return AccessToken{Value: provider.Sensitive("token-" + strconv.FormatInt(b.fetches.Load(), 10)), Expires: time.Now().Add(time.Hour)}
}

// holder is a credential of the one identity that stands on a proof of its own.
func (b *bank) holder(proof byte) *Credential {
	c := &Credential{tokens: b.tokens, own: Key{mode: "m", proof: digest{proof}}, shared: Key{mode: "m", subject: "s"}, shares: sharesNow}
	c.fetch = func(ctx context.Context) (AccessToken, error) {
		b.fetches.Add(1)
		return b.answer(ctx, proof)
	}
	return c
}

var errDenied = &provider.Error{Kind: provider.Denied, Message: "denied"}

type outcome struct {
	token AccessToken
	err   error
}

// ask lets a credential ask in a goroutine.
func ask(ctx context.Context, c *Credential) chan outcome {
	done := make(chan outcome, 1)
	go func() {
		token, err := c.Token(ctx)
		done <- outcome{token, err}
	}()
	return done
}

func TestOneFetchServesAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank()
		b.answer = func(context.Context, byte) (AccessToken, error) {
			time.Sleep(80 * time.Millisecond)
			return b.hour(), nil
		}
		starter, cancel := context.WithCancel(t.Context())
		first := ask(starter, b.holder(0))
		synctest.Wait()
		var others []chan outcome
		for i := range 99 {
			others = append(others, ask(t.Context(), b.holder(byte(i))))
		}
		synctest.Wait()
		cancel()
		if got := <-first; !errors.Is(got.err, context.Canceled) || provider.KindOf(got.err) != provider.Unavailable {
			t.Errorf("the starter that gave up gets %v", got.err)
		}
		for _, o := range others {
			if got := <-o; got.err != nil || got.token.Value != "token-1" {
				t.Fatalf("a waiter gets %v, %v", string(got.token.Value), got.err)
			}
		}
		if n := b.fetches.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

func TestCredentialFailureIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank()
		b.answer = func(_ context.Context, proof byte) (AccessToken, error) {
			time.Sleep(80 * time.Millisecond)
			if proof == 0 {
				return AccessToken{}, errDenied
			}
			return b.hour(), nil
		}
		bad := ask(t.Context(), b.holder(0))
		synctest.Wait()
		badToo, good := ask(t.Context(), b.holder(0)), ask(t.Context(), b.holder(1))
		for _, o := range []chan outcome{bad, badToo} {
			if got := <-o; !errors.Is(got.err, errDenied) {
				t.Errorf("the bad credential gets %v", got.err)
			}
		}
		if got := <-good; got.err != nil {
			t.Errorf("the good credential gets %v", got.err)
		}
		if n := b.fetches.Load(); n != 2 {
			t.Errorf("%d fetches, want one per proof", n)
		}
	})
}

func TestOutageIsEverybodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank()
		down := &provider.Error{Kind: provider.Unavailable, Message: "down"}
		b.answer = func(context.Context, byte) (AccessToken, error) { time.Sleep(time.Second); return AccessToken{}, down }
		var all []chan outcome
		for i := range 10 {
			all = append(all, ask(t.Context(), b.holder(byte(i))))
		}
		for _, o := range all {
			if got := <-o; !errors.Is(got.err, down) {
				t.Errorf("a waiter gets %v", got.err)
			}
		}
		if n := b.fetches.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		if n := b.kept(); n != 0 {
			t.Errorf("%d sessions are left of nothing", n)
		}
	})
}

// A token is renewed before it ends, without anybody waiting, by whoever asks then; if that fails the old one serves on.
func TestEarlyRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank()
		token := func(want string) {
			t.Helper()
			got, err := b.holder(1).Token(t.Context())
			synctest.Wait()
			if err != nil || string(got.Value) != want {
				t.Fatalf("token %q, %v, want %q", string(got.Value), err, want)
			}
		}
		token("token-1")
		time.Sleep(54 * time.Minute)
		token("token-1")
		time.Sleep(2 * time.Minute)
		b.answer = func(context.Context, byte) (AccessToken, error) { return AccessToken{}, errDenied }
		token("token-1")
		token("token-1") // not asked for again at once
		if n := b.fetches.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
		b.answer = func(context.Context, byte) (AccessToken, error) { return b.hour(), nil }
		time.Sleep(renewPause)
		token("token-1")
		token("token-3")
		time.Sleep(2 * time.Hour)
		token("token-4")
		b.answer = func(context.Context, byte) (AccessToken, error) { return AccessToken{}, errDenied }
		time.Sleep(2 * time.Hour)
		if _, err := b.holder(1).Token(t.Context()); !errors.Is(err, errDenied) {
			t.Errorf("after its end the identity is still good: %v", err)
		}
	})
}

// A token that ends in the next moment would end on its way.
func TestTokensAreNotUsedInTheirLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank()
		if got := <-ask(t.Context(), b.holder(1)); got.err != nil {
			t.Fatal(got.err)
		}
		down := &provider.Error{Kind: provider.Unavailable, Message: "down"}
		b.answer = func(context.Context, byte) (AccessToken, error) { return AccessToken{}, down }
		time.Sleep(time.Hour - lastMoment - time.Second)
		if got := <-ask(t.Context(), b.holder(1)); got.err != nil {
			t.Errorf("before its last moment: %v", got.err)
		}
		synctest.Wait()
		time.Sleep(2 * time.Second)
		if got := <-ask(t.Context(), b.holder(1)); !errors.Is(got.err, down) {
			t.Errorf("in its last moment: %v, %v", got.token, got.err)
		}
	})
}

func TestRejectedTokenIsReplacedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank()
		old, err := b.holder(1).Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			got, err := b.holder(byte(i)).Renew(t.Context(), old)
			if err != nil || got.Value != "token-2" {
				t.Fatalf("%q, %v", string(got.Value), err)
			}
		}
		again, err := b.holder(1).Renew(t.Context(), AccessToken{Value: "token-2"})
		if err != nil || again.Value != "token-2" || b.fetches.Load() != 2 {
			t.Errorf("%q, %v after %d fetches: a vault that rejects everything is paid for", string(again.Value), err, b.fetches.Load())
		}
		time.Sleep(renewPause)
		if got, _ := b.holder(1).Renew(t.Context(), AccessToken{Value: "token-2"}); got.Value != "token-3" {
			t.Errorf("after a pause it is not renewed: %q", string(got.Value))
		}
	})
}

// A rejection while the token is being renewed anyway waits for that renewal.
func TestRejectionDuringARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank()
		old, err := b.holder(1).Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.answer = func(context.Context, byte) (AccessToken, error) { time.Sleep(time.Second); return b.hour(), nil }
		time.Sleep(56 * time.Minute)
		if got, err := b.holder(1).Token(t.Context()); err != nil || got != old {
			t.Fatalf("%q, %v", string(got.Value), err)
		}
		if got, err := b.holder(1).Renew(t.Context(), old); err != nil || got.Value != "token-2" || b.fetches.Load() != 2 {
			t.Errorf("%q, %v after %d fetches", string(got.Value), err, b.fetches.Load())
		}
	})
}

// A token that Entra ID has accepted stands for the identity that it names, until its access token ends.
func TestSharingOnceAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank()
		claimant := func(proof byte) *Credential {
			c := b.holder(proof)
			c.shares = sharesOnceAccepted
			return c
		}
		b.answer = func(_ context.Context, proof byte) (AccessToken, error) {
			if proof == 9 {
				return AccessToken{}, errDenied
			}
			return b.hour(), nil
		}
		for range 3 {
			key, err := claimant(1).Key(t.Context())
			if err != nil || key != claimant(1).shared {
				t.Fatalf("key %v, %v", key, err)
			}
		}
		if _, err := b.holder(2).Token(t.Context()); err != nil || b.fetches.Load() != 1 {
			t.Errorf("the identity's token is not that of the exchange: %v, %d fetches", err, b.fetches.Load())
		}
		for range 2 {
			if key, err := claimant(9).Key(t.Context()); !errors.Is(err, errDenied) || key != (Key{}) {
				t.Errorf("a token that was refused gets the key %v, %v", key, err)
			}
		}
		time.Sleep(time.Hour)
		before := b.fetches.Load()
		if _, err := claimant(1).Key(t.Context()); err != nil || b.fetches.Load() != before+1 {
			t.Errorf("after the end of its access token it is believed without an exchange: %v", err)
		}
	})
}

func TestTokensAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank()
		for i := range maxSessions + 100 {
			c := b.holder(1)
			c.shared.subject = fmt.Sprint(i)
			if _, err := c.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := b.kept(); n > maxSessions {
				t.Fatalf("%d sessions are kept", n)
			}
		}
		time.Sleep(time.Hour + sweepEvery)
		synctest.Wait()
		b.tokens.mu.Lock()
		defer b.tokens.mu.Unlock()
		if len(b.tokens.sessions) != 0 || b.tokens.sweeping {
			t.Errorf("%d tokens outlive their end, sweeping %v", len(b.tokens.sessions), b.tokens.sweeping)
		}
	})
}

func TestPanicInAFetchIsAnError(t *testing.T) {
	b := newBank()
	b.answer = func(context.Context, byte) (AccessToken, error) { panic("the-secret") }
	_, err := b.holder(1).Token(t.Context())
	if err == nil || provider.KindOf(err) != provider.Internal || err.Error() == "" {
		t.Errorf("got %v", err)
	}
}

// A renewal that fails at once is not asked for a second time, however soon its answer is there: the fetch may be over
// before the one who began it gets to wait for it.
func TestFailedRenewalIsAskedOnce(t *testing.T) {
	for range 500 {
		b := newBank()
		c := b.holder(0)
		old, err := c.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.answer = func(context.Context, byte) (AccessToken, error) { return AccessToken{}, errDenied }
		if _, err := c.Renew(t.Context(), old); !errors.Is(err, errDenied) {
			t.Fatalf("the renewal gives %v", err)
		}
		if n := b.fetches.Load(); n != 2 {
			t.Fatalf("%d fetches, want the first and one renewal", n)
		}
	}
}
