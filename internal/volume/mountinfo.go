package volume

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// parseMounts returns the mount points in a table of the format of proc_pid_mountinfo(5), absolute and unescaped, in the order of the
// table: "ID parent major:minor root POINT options optional... - type source super".
func parseMounts(r io.Reader) (points []string, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		left, _, ok := strings.Cut(lines.Text(), " - ")
		// By blanks alone: the kernel escapes those, but not what else Unicode takes for one.
		fields := strings.Split(left, " ")
		if !ok || len(fields) < 6 {
			return nil, fmt.Errorf("parsing mount table: line %d is not of the known form", len(points)+1)
		}
		points = append(points, unescape(fields[4]))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("parsing mount table: %w", err)
	}
	return points, nil
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
