package conformance

import (
	"strings"
	"testing"
)

const passedRun = `{"Action":"run","Package":"keymount/p","Test":"TestA/x"}
{"Action":"attr","Package":"keymount/p","Test":"TestA/x","Key":"conformance","Value":"1.4/a"}
{"Action":"attr","Package":"keymount/p","Test":"TestA/x","Key":"other","Value":"1.4/b"}
{"Action":"pass","Package":"keymount/p","Test":"TestA/x"}
`

func TestReport(t *testing.T) {
	row := []Row{{"1.4/a", "in", "out"}}
	for _, tc := range []struct {
		name, run string
		rows      []Row
		wantErr   string
	}{
		{"every row has a test", passedRun, row, ""},
		{"a row without a test", passedRun, append(row, Row{"1.4/b", "in", "out"}), "row 1.4/b: no passing test"},
		{"a failed test claims nothing", strings.Replace(passedRun, `"pass"`, `"fail"`, 1), row, "row 1.4/a: no passing test"},
		{"a claim without a row", passedRun, nil, `claim "1.4/a"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			claims, err := Read(strings.NewReader(tc.run))
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			err = Write(&out, tc.rows, claims)
			if (err == nil) != (tc.wantErr == "") || err != nil && !strings.Contains(err.Error(), tc.wantErr) {
				t.Fatalf("error %v, want one with %q", err, tc.wantErr)
			}
			if tc.wantErr == "" && !strings.Contains(out.String(), "| 1.4/a | in | out | `p.TestA/x` |") {
				t.Errorf("the report lacks the row:\n%s", out.String())
			}
		})
	}
}

func TestRowsAreWellFormed(t *testing.T) {
	rows, err := Rows()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if table, _, _ := strings.Cut(row.ID, "/"); title(table) == "" {
			t.Errorf("%s: no title for table %q", row.ID, table)
		}
	}
}
