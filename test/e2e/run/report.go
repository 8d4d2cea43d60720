//go:build integration && linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
)

// A report follows the scenarios while they run, and says at the end what became of them.
type report struct {
	out, log io.Writer
	results  []result
	output   map[string][]string // of each test that has not ended
	figures  []string
	loose    []string // what belongs to no test, such as a panic
	current  string
}

type result struct{ status, name, took string }

func newReport(out, log io.Writer) *report {
	return &report{out: out, log: log, output: map[string][]string{}}
}

var (
	endOf  = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \((.*)\)$`)
	others = regexp.MustCompile(`^=== (RUN|PAUSE|CONT|NAME) +(\S*)$`)
)

// maxOutput bounds what is kept of one test, in lines.
const maxOutput = 2000

// read takes what the test binary prints with -test.v=test2json: marked lines say whose the lines after them are.
func (r *report) read(from io.Reader) {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			fmt.Fprint(r.log, line)
			r.line(strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			return
		}
	}
}

func (r *report) line(line string) {
	line = strings.Trim(line, "\x16\x0e\x0f")
	if m := others.FindStringSubmatch(line); m != nil {
		r.current = m[2]
		return
	}
	if m := endOf.FindStringSubmatch(line); m != nil {
		r.end(result{m[1], strings.TrimPrefix(m[2], "TestEndToEnd/"), m[3]}, m[2])
		return
	}
	if _, figure, ok := strings.Cut(line, "figure: "); ok {
		r.figures = append(r.figures, figure)
		return
	}
	switch {
	case r.current == "":
		r.loose = append(r.loose, line)
	case len(r.output[r.current]) < maxOutput:
		r.output[r.current] = append(r.output[r.current], line)
	}
}

func (r *report) end(got result, name string) {
	r.results = append(r.results, got)
	if strings.Contains(got.name, "/") || got.status == "FAIL" {
		fmt.Fprintf(r.out, "%8s  %s %s\n", got.took, got.status, got.name)
	}
	if got.status == "FAIL" {
		for _, line := range r.output[name] {
			fmt.Fprintln(r.out, "            "+line)
		}
	}
	delete(r.output, name)
}

func (r *report) failed() bool {
	for _, got := range r.results {
		if got.status != "PASS" {
			return true
		}
	}
	return false
}

// scenarios says how many scenarios have ended.
func (r *report) scenarios() int {
	count := 0
	for _, got := range r.results {
		if strings.Contains(got.name, "/") {
			count++
		}
	}
	return count
}

// print prints the table, the figures, and whatever nothing else accounts for.
func (r *report) print() {
	fmt.Fprintln(r.out)
	table := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	passed := 0
	for _, got := range r.results {
		if strings.Contains(got.name, "/") {
			fmt.Fprintf(table, "  %s\t%s\t%s\n", got.name, got.took, got.status)
			if got.status == "PASS" {
				passed++
			}
		}
	}
	table.Flush()
	fmt.Fprintf(r.out, "%d scenarios passed\n", passed)
	if len(r.figures) > 0 {
		fmt.Fprintln(r.out, "\nFigures:")
		for _, f := range r.figures {
			fmt.Fprintln(r.out, "  "+f)
		}
	}
	for name, lines := range r.output { // what had not ended when the test binary did
		if len(lines) > 0 && name != "" {
			fmt.Fprintf(r.out, "\n%s did not end; it said:\n  %s\n", name, strings.Join(lines, "\n  "))
		}
	}
	for _, line := range r.loose {
		if line != "PASS" && line != "FAIL" {
			fmt.Fprintln(r.out, line)
		}
	}
}
