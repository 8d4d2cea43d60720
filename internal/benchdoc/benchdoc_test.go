package benchdoc_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"keymount/internal/benchdoc"
)

func TestWriteReplacesItsBlockOnly(t *testing.T) {
	document := filepath.Join(t.TempDir(), "doc.md")
	const (
		before = "# Title\n\n<!-- a: begin -->\nold\n<!-- a: end -->\n<!-- b: begin -->\nb\n<!-- b: end -->\nend\n"
		after  = "# Title\n\n<!-- a: begin -->\nnew\n<!-- a: end -->\n<!-- b: begin -->\nb\n<!-- b: end -->\nend\n"
	)
	if err := os.WriteFile(document, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second run finds what the first wrote
		if err := benchdoc.Write(document, "a", "new\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(document); err != nil || string(got) != after {
			t.Errorf("got %q, %v", got, err)
		}
	}
	for _, name := range []string{"c", "a: begin -->\n<!-- b"} {
		if err := benchdoc.Write(document, name, "new\n"); err == nil {
			t.Errorf("block %q was written, which the document does not have", name)
		}
	}
	if got, err := os.ReadFile(document); err != nil || string(got) != after {
		t.Errorf("a refused write left %q, %v", got, err)
	}
}

func TestTable(t *testing.T) {
	want := "| work | p50 |\n|---|---|\n| a | 1.5 ms |\n"
	if got := benchdoc.Table([][]string{{"work", "p50"}, {"a", benchdoc.Milliseconds(1500 * time.Microsecond)}}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPercentile(t *testing.T) {
	var values []int64
	for i := range int64(200) {
		values = append(values, 200-i)
	}
	for p, want := range map[int]int64{1: 2, 50: 100, 99: 198, 100: 200} {
		if got := benchdoc.Percentile(values, p); got != want {
			t.Errorf("percentile %d of 1 to 200 is %d, want %d", p, got, want)
		}
	}
}
