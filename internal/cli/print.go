package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

func invalidf(format string, args ...any) error {
	return &provider.Error{Kind: provider.Invalid, Message: fmt.Sprintf(format, args...)}
}

// printable makes text from outside fit for one line of a terminal: line ends become "; " (a blank after a colon), and what
// could steer a terminal is shown escaped.
func printable(s string) string {
	var one strings.Builder
	for line := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '\n' || r == '\r' }) {
		switch {
		case one.Len() == 0:
			one.WriteString(line)
			continue
		case strings.HasSuffix(one.String(), ":"):
			one.WriteByte(' ')
		default:
			one.WriteString("; ")
		}
		one.WriteString(strings.TrimLeft(line, " "))
	}
	s = one.String()
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// An event is one thing that happened, as -o json prints it: one JSON object per line.
type event struct {
	Event     string        `json:"event"` // mounted, changed, unchanged, failed
	Directory string        `json:"directory"`
	Files     []file        `json:"files,omitempty"`
	Objects   []object      `json:"objects,omitempty"` // those that no file names
	Added     []string      `json:"added,omitempty"`
	Updated   []string      `json:"updated,omitempty"`
	Removed   []string      `json:"removed,omitempty"`
	Warnings  []string      `json:"warnings,omitempty"`
	Errors    []objectError `json:"errors,omitempty"`
}

type file struct {
	Path    string `json:"path"`
	Mode    string `json:"mode"` // octal
	Size    int    `json:"size"` // bytes
	Object  string `json:"object,omitempty"`
	Version string `json:"version,omitempty"`
}

type object struct {
	ID      string `json:"id"`
	Version string `json:"version"`
}

type objectError struct {
	Object  string `json:"object,omitempty"`
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

func eventOf(name, dir string, res *publish.Result) *event {
	e := &event{Event: name, Directory: dir, Warnings: res.Warnings,
		Added: res.Change.Added, Updated: res.Change.Updated, Removed: res.Change.Removed}
	named := map[string]bool{}
	for _, f := range res.Files {
		e.Files = append(e.Files, file{f.Path, fmt.Sprintf("%04o", f.Mode.Perm()), f.Size, f.Object, f.Version})
		named[f.Object] = true
	}
	for _, v := range res.Versions { // the wire does not say which file is which object's
		if !named[v.ID] {
			e.Objects = append(e.Objects, object{v.ID, v.Version})
		}
	}
	return e
}

// failureOf lists the failures of a call, one per object, each with what to do about it.
func failureOf(dir string, err error) *event {
	e := &event{Event: "failed", Directory: dir}
	for _, one := range provider.ErrorsOf(err) {
		remedy := one.Remedy
		if remedy == "" {
			remedy = remedies[one.Kind]
		}
		e.Errors = append(e.Errors, objectError{one.Object, one.Kind.String(), one.Message, remedy})
	}
	return e
}

// remedies are what to do about an error whose source does not say.
var remedies = map[provider.Kind]string{
	provider.Invalid:     "change the class or the command line",
	provider.NotFound:    "check the names of the vault and the object, and the version if the class gives one",
	provider.Denied:      "check who asks (--identity), and that this identity may read from the vault",
	provider.Throttled:   "wait, then try again",
	provider.Unavailable: "check the network and the name of the vault, then try again",
}

// line is an error as one line of text.
func (e *objectError) line() string {
	text := e.Message
	if _, name, _ := strings.Cut(e.Object, "/"); name != "" && !strings.Contains(text, name) {
		text = e.Object + ": " + text
	}
	if e.Remedy != "" {
		text += " (" + e.Remedy + ")"
	}
	return printable(text)
}

func (e *event) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(e)
}

// writeTable prints the files of an event, and objects that cannot be told from the files. Contents are never printed.
func (e *event) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FILE\tMODE\tSIZE\tOBJECT\tVERSION")
	for _, f := range e.Files {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", printable(f.Path), f.Mode, f.Size, dash(f.Object), dash(f.Version))
	}
	if len(e.Objects) > 0 {
		fmt.Fprintln(t, "\nOBJECT\tVERSION")
	}
	for _, o := range e.Objects {
		fmt.Fprintf(t, "%s\t%s\n", dash(o.ID), dash(o.Version))
	}
	return t.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}

// maxNamed is how many files of a kind one line names.
const maxNamed = 10

// changes says in one line what is different: "updated db-password (secret/db-password 3c4d...)".
func (e *event) changes() string {
	var parts []string
	for _, c := range []struct {
		what  string
		paths []string
	}{{"added", e.Added}, {"updated", e.Updated}, {"removed", e.Removed}} {
		if len(c.paths) == 0 {
			continue
		}
		var names []string
		for i, p := range c.paths {
			if i == maxNamed {
				names = append(names, fmt.Sprintf("and %d more", len(c.paths)-i))
				break
			}
			names = append(names, printable(p)+e.origin(p))
		}
		parts = append(parts, c.what+" "+strings.Join(names, ", "))
	}
	if len(parts) == 0 {
		return "nothing changed"
	}
	return strings.Join(parts, "; ")
}

// origin is the object and version of a file, in brackets; "" if unknown or the file is gone.
func (e *event) origin(path string) string {
	for _, f := range e.Files {
		if f.Path == path && f.Object != "" {
			return printable(" (" + strings.TrimSpace(f.Object+" "+f.Version) + ")")
		}
	}
	return ""
}
