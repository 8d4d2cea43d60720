package emulator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
)

// A wire is a plain HTTP client in front of an emulator over TLS.
type wire struct {
	*emulatortest.Emulator
	t      *testing.T
	client *http.Client
	token  string
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w := &wire{Emulator: start(t), t: t}
	w.client = &http.Client{Transport: w.Transport()}
	w.PutSecret("myvault", "s", "value")
	resp, err := w.client.PostForm(tokenURL, loginForm(emulatortest.ClientID, emulatortest.ClientSecret))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), `"access_token":"`)
	w.token, _, _ = strings.Cut(rest, `"`)
	w.Server.ResetRequests()
	return w
}

func (w *wire) get(ctx context.Context, path string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, vaultURL+path, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

const readPath = "/secrets/s?api-version=7.4"

func TestFaults(t *testing.T) {
	w := newWire(t)
	for _, row := range []struct {
		fault  emulator.Fault
		path   string
		status int
		want   string // "" means an error of the connection
	}{
		{emulator.Fault{Do: emulator.ActStatus, Status: 503}, readPath, 503, `"code":"ServiceUnavailable"`},
		{emulator.Fault{Do: emulator.ActStatus, Status: 500, Body: "odd"}, readPath, 500, "odd"},
		{emulator.Fault{Do: emulator.ActThrottle}, readPath, 429, `{"error":{"code":"Throttled","message":"Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"}}`},
		{emulator.Fault{Do: emulator.ActHTML}, readPath, 400, "<title>Runtime Error</title>"},
		{emulator.Fault{Do: emulator.ActCut}, readPath, 0, ""},
		{emulator.Fault{Do: emulator.ActSlow, Chunk: 100, Pause: time.Millisecond}, readPath, 200, `"value":"value"`},
		{emulator.Fault{Do: emulator.ActTypes}, readPath, 200, `"value":5`},
		{emulator.Fault{Do: emulator.ActMissing, Member: "value"}, readPath, 200, `{"attributes":`},
		{emulator.Fault{Do: emulator.ActOversize, Size: 100}, readPath, 200, `{"padding":"` + strings.Repeat("x", 100) + `","value"`},
		{emulator.Fault{Do: emulator.ActUnauthorized}, readPath, 401, "AKV10046"},
		{emulator.Fault{Do: emulator.ActBareChallenge}, readPath, 401, "AKV10000"},
		{emulator.Fault{Do: emulator.ActForbidden}, readPath, 403, "ForbiddenByRbac"},
		{emulator.Fault{Do: emulator.ActFirewall}, readPath, 403, "ForbiddenByFirewall"},
		{emulator.Fault{Do: emulator.ActBody, Body: `{"value":`}, readPath, 200, `{"value":`},
		{emulator.Fault{Do: emulator.ActEmptyPage}, "/secrets?api-version=7.4", 200, `{"nextLink":"https://myvault.vault.azure.net:443/secrets?api-version=7.4","value":[]}`},
		{emulator.Fault{Do: emulator.ActEndlessPages}, "/secrets/s/versions?api-version=7.4", 200, `"nextLink":"https://myvault.vault.azure.net:443/secrets/s/versions`},
		{emulator.Fault{Do: emulator.ActForeignLink}, "/secrets?api-version=7.4", 200, `"nextLink":"https://attacker.example/secrets?api-version=7.4"`},
	} {
		t.Run(row.fault.Do, func(t *testing.T) {
			row.fault.Times = 1
			row.fault.Kind = emulator.GroupVault
			clearFault := w.SetFault(row.fault)
			defer clearFault()
			resp, body, err := w.get(t.Context(), row.path)
			if row.want == "" {
				// The transport may try a request of its own again: a fault of one time hits only the first.
				if err == nil && resp.StatusCode != 200 {
					t.Errorf("%d %s", resp.StatusCode, body)
				}
				return
			}
			if err != nil || resp.StatusCode != row.status || !strings.Contains(body, row.want) {
				t.Fatalf("%v %.300s", err, body)
			}
			if resp.Header.Get("Retry-After") != "" {
				t.Error("there is a Retry-After that nobody asked for")
			}
			if resp, body, err := w.get(t.Context(), row.path); err != nil || resp.StatusCode != 200 || strings.Contains(body, "nextLink\":\"") {
				t.Errorf("after the one time: %v %s", err, body)
			}
		})
	}
}

func TestCutConnections(t *testing.T) {
	w := newWire(t)
	w.SetFault(emulator.Fault{Do: emulator.ActCut, Kind: emulator.KindSecretGet})
	if _, body, err := w.get(t.Context(), readPath); err == nil {
		t.Errorf("got %s, want an error of the connection", body)
	}
}

func TestFaultsChoose(t *testing.T) {
	w := newWire(t)
	w.SetFault(emulator.Fault{Do: emulator.ActThrottle, Kind: emulator.KindSecretGet, Path: "/secrets/s", Skip: 1, Times: 2, RetryAfter: "7"})
	var got []int
	for range 4 {
		resp, _, err := w.get(t.Context(), readPath)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, resp.StatusCode)
		if (resp.StatusCode == 429) != (resp.Header.Get("Retry-After") == "7") {
			t.Errorf("status %d with Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
	}
	if fmt.Sprint(got) != "[200 429 429 200]" {
		t.Errorf("got %v", got)
	}
	if resp, _, err := w.get(t.Context(), "/secrets?api-version=7.4"); err != nil || resp.StatusCode != 200 {
		t.Errorf("another kind is hit too: %v", err)
	}
	if n := w.Requests(); n.Total() != 5 || n.Total(emulator.KindSecretGet) != 4 || n.Total(emulator.GroupVault) != 5 || n.Total(emulator.GroupToken) != 0 {
		t.Errorf("counted %v", n)
	}
	log := w.Server.Log()
	if e := log[1]; len(log) != 5 || e.Status != 429 || e.Kind != emulator.KindSecretGet || e.Path != readPath || e.Proto != "HTTP/2.0" || !e.Done {
		t.Errorf("log %+v", log)
	}
}

func TestRate(t *testing.T) {
	a := newAPI(t, nil)
	a.do("PUT", "/secrets/s", `{"value":"v"}`)
	if _, err := a.SetFault(emulator.Fault{Do: emulator.ActRate, PerSecond: 2}); err != nil {
		t.Fatal(err)
	}
	var got []int
	for i := range 6 {
		if i == 3 {
			a.clock = a.clock.Add(time.Second)
		}
		got = append(got, a.do("GET", "/secrets/s", "").Code)
	}
	if fmt.Sprint(got) != "[200 200 429 200 200 429]" {
		t.Errorf("got %v", got)
	}
}

func TestHangAndAwait(t *testing.T) {
	w := newWire(t)
	clearFault := w.SetFault(emulator.Fault{Do: emulator.ActHang, Kind: emulator.KindSecretGet})
	var wg sync.WaitGroup
	results := make(chan error, 5)
	for range 5 {
		wg.Go(func() {
			resp, _, err := w.get(t.Context(), readPath)
			if err == nil && resp.StatusCode != 200 {
				err = errors.New(resp.Status)
			}
			results <- err
		})
	}
	w.Await(emulator.KindSecretGet, 5)
	if n := w.Server.MaxInFlight(emulator.GroupVault); n != 5 {
		t.Errorf("%d in flight, want 5", n)
	}
	clearFault()
	wg.Wait()
	for range 5 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	w.SetFault(emulator.Fault{Do: emulator.ActHang, Kind: emulator.KindSecretGet})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, _, err := w.get(ctx, readPath)
		gone <- err
	}()
	w.Await(emulator.KindSecretGet, 6)
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("a client that gives up gets %v", err)
	}
}

func TestLatency(t *testing.T) {
	w := newWire(t)
	if err := w.Server.SetLatency(emulator.GroupVault, 30*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if _, _, err := w.get(t.Context(), readPath); err != nil || time.Since(before) < 30*time.Millisecond {
		t.Errorf("%v after %s, want at least 30 ms", err, time.Since(before))
	}
}

func TestWrongFaults(t *testing.T) {
	s := emulator.New(emulator.Options{})
	for _, f := range []emulator.Fault{
		{}, {Do: "storm"}, {Do: emulator.ActStatus}, {Do: emulator.ActStatus, Status: 99}, {Do: emulator.ActRate}, {Do: emulator.ActMissing},
		{Do: emulator.ActCut, Kind: "x"}, {Do: emulator.ActCut, Times: -1}, {Do: emulator.ActThrottle, RetryAfter: "1\r\nX: y"}, {Do: emulator.ActOversize, Size: 1 << 40},
	} {
		if _, err := s.SetFault(f); err == nil {
			t.Errorf("%+v is taken", f)
		}
	}
	if s.SetLatency("x", 0) == nil || s.SetLatency(emulator.GroupVault, -1) == nil {
		t.Error("a wrong latency is taken")
	}
}
