package recordings

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestVaultRecordings(t *testing.T) {
	total := &tally{}
	var mu sync.Mutex
	files := 0
	t.Run("replay", func(t *testing.T) {
		for _, src := range vaultSources() {
			for _, rec := range load(t, src) {
				files++
				t.Run(rec.name, func(t *testing.T) {
					t.Parallel()
					s := start(t, rec, nil)
					s.replay()
					for _, d := range s.differences {
						t.Error(d)
					}
					mu.Lock()
					defer mu.Unlock()
					total.add(&s.tally)
				})
			}
		}
	})
	t.Logf("%d recordings of vaults: %s", files, total)
	skipped := 0
	for _, reason := range slices.Sorted(maps.Keys(total.skipped)) {
		t.Logf("not compared: %3d %s", total.skipped[reason], reason)
		skipped += total.skipped[reason]
	}
	// What the recordings hold does not change: a smaller number means that the comparison has got a hole.
	got := []int{files, total.Requests, total.Headers, total.Members, total.Values, total.Items, total.Pages}
	want := []int{80, 473, 4508, 6196, 3317, 51, 62}
	if !slices.Equal(got, want) {
		t.Errorf("compared %v recordings, requests, headers, members, values, items and pages; want %v", got, want)
	}
	if skipped != 313 {
		t.Errorf("%d requests were not compared, want 313", skipped)
	}
}

// A wrong answer is noticed: each row breaks one thing of the emulator's answers, and the comparison of the recording must fail by it.
func TestComparisonNotices(t *testing.T) {
	body := func(old, replacement string) func(*httptest.ResponseRecorder) {
		return func(r *httptest.ResponseRecorder) {
			text := strings.Replace(r.Body.String(), old, replacement, 1)
			r.Body.Reset()
			r.Body.WriteString(text)
		}
	}
	rows := []struct {
		name, recording string
		change          func(*httptest.ResponseRecorder)
		want            string
	}{
		{"status", "azsecrets@v0.12.0/TestCRUD", func(r *httptest.ResponseRecorder) {
			if r.Code == http.StatusNotFound {
				r.Code = http.StatusGone
			}
		}, "status: recorded 404, emulated 410"},
		{"header missing", "azsecrets@v0.12.0/TestCRUD", func(r *httptest.ResponseRecorder) { r.Header().Del("Pragma") }, "header Pragma"},
		{"header value", "azsecrets@v0.12.0/TestCRUD", func(r *httptest.ResponseRecorder) { r.Header().Set("Expires", "0") }, "header Expires"},
		{"member missing", "azsecrets@v0.12.0/TestCRUD", body(`"recoverableDays":7`, `"x":7`), "attributes: members"},
		{"member added", "azkeys@v0.10.0/TestCRUD/EC", body(`"crv"`, `"d":"x","crv"`), "key: members"},
		{"member order", "azkeys@v0.10.0/TestCRUD/EC", body(`"crv":"P-256K","x":`, `"x":"","crv":`), "key: members"},
		{"number for string", "azsecrets@v0.12.0/TestCRUD", body(`"created":1`, `"created":"1", "n":1`), "created: type"},
		{"value", "azsecrets@v0.12.0/TestCRUD", body(`CustomizedRecoverable`, `Recoverable`), "recoveryLevel: value"},
		{"error text", "azcertificates@v0.9.0/TestCRUD", body(`Deleted Certificate not found`, `Not found`), "error.message: value"},
		{"tags of none", "azsecrets@v0.12.0/TestListSecrets", body(`"recoverableDays":7}`, `"recoverableDays":7},"tags":{}`), "members"},
		{"nextLink without port", "azsecrets@v0.12.0/TestListSecretVersions", body(`:443/`, `/`), "form of the link"},
		{"nextLink absent", "azsecrets@v0.12.0/TestListSecretVersions", body(`,"nextLink":null`, ``), "members: recorded [value nextLink]"},
		{"item missing", "azsecrets@v0.12.0/TestListSecrets", body(`"value":[{"id":"https://fakevault.vault.azure.net/secrets/`, `"value":[{"id":"https://fakevault.vault.azure.net/secrets/x`), "is not in the emulated list"},
	}
	all := map[string]recording{}
	for _, src := range vaultSources() {
		for _, rec := range load(t, src) {
			all[rec.name] = rec
		}
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			rec, ok := all[row.recording]
			if !ok {
				t.Fatalf("there is no recording %s", row.recording)
			}
			s := start(t, rec, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					inner := httptest.NewRecorder()
					next.ServeHTTP(inner, r)
					row.change(inner)
					maps.Copy(w.Header(), inner.Header())
					w.WriteHeader(inner.Code)
					_, _ = w.Write(inner.Body.Bytes())
				})
			})
			s.replay()
			if !slices.ContainsFunc(s.differences, func(d string) bool { return strings.Contains(d, row.want) }) {
				t.Errorf("the comparison did not say %q but: %.2000s", row.want, strings.Join(s.differences, "\n"))
			}
		})
	}
}
