package params

import (
	"path"
	"path/filepath"
	"strings"
)

// filePath returns the path that an entry's alias or name stands for. It must be clean as it stands, since the path is also
// how syncs and readers name the file, and mean the same on every operating system.
func (e *entry) filePath() string {
	field, name := "objectAlias", e.raw.ObjectAlias
	if name == "" {
		field, name = "objectName", e.raw.ObjectName
	}
	if name == "" {
		return "" // name() has said so
	}
	const remedy = "write a path below the volume, such as db/password"
	switch {
	case strings.HasPrefix(name, "/") || filepath.IsAbs(name) || filepath.VolumeName(name) != "":
		e.refuse(field, remedy, "file name must be a relative path")
	case strings.Contains(name, ".."):
		e.refuse(field, remedy, "file name must not contain '..'")
	case field == "objectName":
		return name // Key Vault's rule for names, which name() checks, allows nothing that a path could not hold
	case !printable(name):
		e.refuse(field, remedy, "file name must be printable text, %q is not", show(name))
	case strings.Contains(name, `\`):
		e.refuse(field, remedy, `file name must not contain '\', which separates folders on Windows nodes`)
	case len(name) > maxPath || longestElement(name) > maxElement:
		e.refuse(field, remedy, "file name must not be longer than %d bytes, nor one of its elements than %d", maxPath, maxElement)
	case path.Clean(name) == ".":
		e.refuse(field, remedy, "file name must not be the volume itself, as %q is", show(name))
	case path.Clean(name) != name:
		e.refuse(field, "write "+show(path.Clean(name)), "file name %q is not in its shortest form", show(name))
	default:
		return name
	}
	return ""
}

func longestElement(slashed string) int {
	longest := 0
	for element := range strings.SplitSeq(slashed, "/") {
		longest = max(longest, len(element))
	}
	return longest
}

// A Claim is a file path and whose it is.
type Claim struct {
	Path  string
	Owner *Object
}

// A Conflict is two claims that cannot both be files of one volume.
type Conflict struct {
	First, Second Claim
	// Folder says that the first is a folder on the way to the second, not the same path.
	Folder bool
}

// Conflicts returns the claims that exclude each other: the same path twice, or a file where another needs a folder. Each
// pair of objects is reported once.
func Conflicts(claims []Claim) []Conflict {
	type pair struct{ a, b *Object }
	byPath := make(map[string]Claim, len(claims))
	seen := make(map[pair]bool)
	var found []Conflict
	add := func(c Conflict) {
		if k := (pair{c.First.Owner, c.Second.Owner}); !seen[k] {
			seen[k] = true
			found = append(found, c)
		}
	}
	for _, c := range claims {
		if first, ok := byPath[c.Path]; ok {
			add(Conflict{First: first, Second: c})
			continue
		}
		byPath[c.Path] = c
	}
	for _, c := range claims {
		for i, r := range c.Path {
			if r != '/' {
				continue
			}
			if file, ok := byPath[c.Path[:i]]; ok {
				add(Conflict{First: file, Second: c, Folder: true})
			}
		}
	}
	return found
}

// Text says what the conflict is, naming both entries, and what to do.
func (c Conflict) Text() (message, remedy string) {
	who := func(o *Object) string { return o.Field() + " (" + o.ID() + ")" }
	remedy = "give one of them another objectAlias"
	if c.Folder {
		return who(c.First.Owner) + " is the file " + show(c.First.Path) + ", which " + who(c.Second.Owner) +
			" needs as a folder for " + show(c.Second.Path), remedy
	}
	return who(c.First.Owner) + " and " + who(c.Second.Owner) + " are both the file " + show(c.First.Path), remedy
}

// conflicts refuses what cannot be a volume whatever the vault answers. Files that depend on the answer, such as those of
// a certificate that is split, are checked when it is there.
func (p *parser) conflicts(objects []Object) {
	var claims []Claim
	reads := 0
	for i := range objects {
		o := &objects[i]
		if o.Path == "" {
			continue
		}
		if reads += max(1, o.History); reads > maxReads {
			return // refused already
		}
		for v := range max(1, o.History) {
			claims = append(claims, Claim{Path: o.PathOf(v), Owner: o})
		}
	}
	for _, c := range Conflicts(claims) {
		message, remedy := c.Text()
		p.problem(c.Second.Owner.Field()+".objectAlias", remedy, "%s", message)
	}
}
