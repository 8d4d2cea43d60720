package logging

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// modules are what -vmodule says: the verbosity of source files, by patterns in their order.
type modules []module

type module struct {
	pattern   string
	verbosity int
}

func (m *modules) String() string {
	var all []string
	for _, module := range *m {
		all = append(all, fmt.Sprintf("%s=%d", module.pattern, module.verbosity))
	}
	return strings.Join(all, ",")
}

// Set implements flag.Value. Like klog's it starts anew when the flag is repeated, and leaves out what is empty or 0.
func (m *modules) Set(value string) error {
	var all modules
	for _, part := range strings.Split(value, ",") {
		if part == "" {
			continue
		}
		pattern, number, found := strings.Cut(part, "=")
		verbosity, err := strconv.ParseInt(number, 10, 32)
		switch {
		case !found || pattern == "" || err != nil:
			return errors.New("syntax error: expect comma-separated list of filename=N")
		case verbosity < 0:
			return errors.New("negative value for vmodule level")
		}
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", pattern, err)
		}
		if verbosity > 0 {
			all = append(all, module{strings.TrimSuffix(pattern, ".go"), int(verbosity)})
		}
	}
	*m = all
	return nil
}

// verbosityOf returns the verbosity of a source file: 0 if no pattern matches.
func (m modules) verbosityOf(file string) int {
	file = strings.TrimSuffix(filepath.ToSlash(file), ".go")
	for _, module := range m {
		if matches(module.pattern, file) {
			return module.verbosity
		}
	}
	return 0
}

// matches compares as many of the last parts of a path as the pattern has: builds differ in what stands before a module's
// own folders. A pattern of one part may be the package's folder as well.
func matches(pattern, file string) bool {
	parts := strings.Split(file, "/")
	n := strings.Count(pattern, "/") + 1
	if strings.HasPrefix(pattern, "/") || n > len(parts) {
		return match(pattern, file)
	}
	if match(pattern, strings.Join(parts[len(parts)-n:], "/")) {
		return true
	}
	return n == 1 && len(parts) > 1 && match(pattern, parts[len(parts)-2])
}

func match(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil // Set has refused patterns that are none
}
