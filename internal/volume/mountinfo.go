package volume

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A mount is one line of a mount table.
type mount struct {
	ID    int
	Point string // absolute, unescaped
	Type  string // file system
}

// parseMounts parses the format of proc_pid_mountinfo(5): "ID parent major:minor root point options optional... - type source super".
func parseMounts(r io.Reader) ([]mount, error) {
	var mounts []mount
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(left)
		if !ok || len(fields) < 6 {
			return nil, fmt.Errorf("parsing mount table: line %d is not of the known form", len(mounts)+1)
		}
		id, err := strconv.Atoi(fields[0])
		if err != nil {
			return nil, fmt.Errorf("parsing mount table: line %d has no number", len(mounts)+1)
		}
		kind, _, _ := strings.Cut(right, " ")
		mounts = append(mounts, mount{ID: id, Point: unescape(fields[4]), Type: kind})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("parsing mount table: %w", err)
	}
	return mounts, nil
}

// unescape undoes the octal escapes that the kernel writes for blanks, tabs, newlines and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
