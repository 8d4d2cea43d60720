package params

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"keymount/internal/provider"
)

// Limits on what one class may ask for. They are far above what a volume needs and stop a class from using up the
// provider's memory or the vault's request budget.
const (
	maxObjectsText = 256 << 10 // bytes of the objects parameter, and of its entries together if aliases repeat them
	maxFields      = 64        // of one entry, known or not
	maxObjects     = 1000
	maxHistory     = 500
	maxReads       = 2000 // objects times their histories
	maxPath        = 1024 // bytes of a file name with its folders
	maxElement     = 251  // bytes of one element: 255 in Linux file systems, less ".crt" or ".key"
	maxIdentifier  = 256
	maxProblems    = 50
	maxWarnings    = 20
	maxShown       = 128 // runes of a value that a message repeats
)

func field(key string) string { return "parameters." + key }

// problem records that the field at path cannot be accepted. The text after the path contains upstream's.
func (p *parser) problem(path, remedy, format string, args ...any) {
	if len(p.found) == maxProblems {
		p.more++
		return
	}
	p.found = append(p.found, &provider.Error{
		Kind:    provider.Invalid,
		Message: path + ": " + fmt.Sprintf(format, args...),
		Remedy:  remedy,
	})
}

func (p *parser) problems() error {
	if len(p.found) == 0 {
		return nil
	}
	if p.more > 0 {
		p.found = append(p.found, &provider.Error{Kind: provider.Invalid,
			Message: fmt.Sprintf("parameters: and %d more problems", p.more), Remedy: "mend those above first"})
	}
	return p.found
}

func (p *parser) warn(format string, args ...any) {
	if len(p.warnings) < maxWarnings {
		p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
	}
}

// show makes a value from a class fit for a log line or an Event: one line, bounded.
func show(s string) string {
	cut := false
	if len(s) > maxShown {
		n := maxShown
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s, cut = s[:n], true
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if cut {
		s += "..."
	}
	return s
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// unknownKeys warns of parameters that look like a misspelt known one. Others are no business of ours: kubelet, the driver
// and other providers add their own.
func (p *parser) unknownKeys() {
	for k, meant := range p.slips() {
		p.warn("parameters.%s is not a parameter and was ignored; did you mean %s?", show(k), meant)
	}
}

// orSlip is the remedy for a parameter that is missing: where another one looks like a misspelt form of it, that is the cause,
// and a warning would be lost because there is no result that carries it.
func (p *parser) orSlip(missing, remedy string) string {
	for k, meant := range p.slips() {
		if meant == missing || missing == keyTenant && meant == keyTenantOld {
			return "write " + meant + " where the class says " + show(k)
		}
	}
	return remedy
}

// slips yields the parameters that look like a misspelt known one, and that one, always in the same order.
func (p *parser) slips() iter.Seq2[string, string] {
	known := []string{keyPodIdentity, keyManagedIdentity, keyTokenProxy, keyVault, keyTenant, keyTenantOld, keyCloudFile,
		keyCloud, keyClient, keyUserAssigned, keyObjects}
	return func(yield func(k, meant string) bool) {
		for _, k := range slices.Sorted(maps.Keys(p.values)) {
			if meant, ok := slip(k, known); ok && !yield(k, meant) {
				return
			}
		}
	}
}

// slip returns the known key that k, which is none, was probably meant to be: the same letters in another case, or up to
// two letters off.
func slip(k string, known []string) (string, bool) {
	if slices.Contains(known, k) {
		return "", false
	}
	best, distance := "", 3
	for _, candidate := range known {
		if d := len(k) - len(candidate); d < -2 || d > 2 {
			continue
		}
		if d := editDistance(strings.ToLower(k), strings.ToLower(candidate)); d < distance {
			best, distance = candidate, d
		}
	}
	return best, best != ""
}

// editDistance is Levenshtein's: insertions, deletions and replacements of bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
