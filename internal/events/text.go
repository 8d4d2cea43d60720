package events

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/validation"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

const (
	// maxMessage bounds the text of an Event, in bytes: the newer Events API takes no longer ones.
	maxMessage = 1024
	// maxTexts bounds that of the failures that are told in full; of the others the objects are named.
	maxTexts = 600
	// maxText bounds that of a failure that is the only one.
	maxText = 850
	// maxNames bounds the names in one list, in bytes.
	maxNames = 250
)

// failures says in full what failed, as far as that goes, and names the objects of the rest.
func failures(errs provider.Errors) string {
	var texts, rest []string
	size, limit, unnamed := 0, maxTexts, 0
	if len(errs) == 1 {
		limit = maxText
	}
	for i, e := range errs {
		text := shortened(e.Error(), limit)
		if e.Object != "" && !strings.Contains(text, e.Object) {
			text = bounded(e.Object, maxNames) + ": " + text
		}
		if size += len(text); i > 0 && size > maxTexts {
			size = maxTexts
			if e.Object == "" {
				unnamed++
			} else {
				rest = append(rest, e.Object)
			}
			continue
		}
		texts = append(texts, text)
	}
	if len(rest) > 0 {
		texts = append(texts, "and "+names(rest))
	}
	if unnamed > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", unnamed))
	}
	return strings.Join(texts, "; ")
}

// changes says which files are other than they were.
func changes(res *publish.Result) string {
	c := &res.Change
	var parts []string
	for _, p := range []struct {
		what  string
		files []string
	}{{"updated ", c.Updated}, {"added ", c.Added}, {"removed ", c.Removed}} {
		if len(p.files) > 0 {
			parts = append(parts, p.what+names(p.files))
		}
	}
	return strings.Join(parts, "; ")
}

// names lists what fits and counts the rest.
func names(list []string) string {
	var b strings.Builder
	for i, name := range list {
		if b.Len()+len(name) > maxNames && i > 0 {
			fmt.Fprintf(&b, " and %d more", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(bounded(name, maxNames))
	}
	return b.String()
}

// shortened is text in one line of at most limit bytes, which are at least a few hundred. What it lacks is from the middle: a failure
// begins with what and where, and ends with what to do.
func shortened(text string, limit int) string {
	const gap, end = " ... ", 300
	text = strings.ReplaceAll(text, "\n", "; ")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit-len(gap)-end], "") + gap + strings.ToValidUTF8(text[len(text)-end:], "")
	}
	return provider.OneLine(text, limit)
}

// bounded is text in one line of at most limit bytes.
func bounded(text string, limit int) string {
	return provider.OneLine(strings.ReplaceAll(text, "\n", "; "), limit)
}

// nameable refuses names that no pod can have, which have no place in the path of a request.
func nameable(pod provider.Pod) bool {
	return len(validation.ValidateNamespaceName(pod.Namespace, false)) == 0 && len(validation.NameIsDNSSubdomain(pod.Name, false)) == 0
}
