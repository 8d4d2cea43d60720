package recordings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A source is a module that holds recordings, and the module here that pins its version.
type source struct {
	pin, module string
}

const sdk = "github.com/Azure/azure-sdk-for-go/sdk/"

// A recording is one recorded test: its requests in order.
type recording struct {
	name    string // module folder and file
	entries []entry
}

type entry struct {
	URI             string            `json:"RequestUri"`
	Method          string            `json:"RequestMethod"`
	RequestBody     json.RawMessage   `json:"RequestBody"`
	Status          int               `json:"StatusCode"`
	ResponseHeaders map[string]header `json:"ResponseHeaders"`
	ResponseBody    json.RawMessage   `json:"ResponseBody"`
}

// A header is one value, or several with a comma between.
type header string

func (h *header) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*h = header(one)
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return err
	}
	*h = header(strings.Join(many, ", "))
	return nil
}

// load reads all recordings of a module from the module cache.
func load(t *testing.T, src source) []recording {
	t.Helper()
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", src.module)
	cmd.Dir = src.pin
	out, err := cmd.Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Fatalf("locating %s in the module cache: %v; run 'go mod download' in test/recordings/%s", src.module, err, src.pin)
	}
	var all []recording
	root := filepath.Join(dir, "testdata", "recordings")
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".json" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var file struct{ Entries []entry }
		if err := json.Unmarshal(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), &file); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		rel, _ := filepath.Rel(root, path)
		all = append(all, recording{name: filepath.Base(dir) + "/" + strings.TrimSuffix(rel, ".json"), entries: file.Entries})
		return nil
	})
	if err != nil || len(all) == 0 {
		t.Fatalf("reading the recordings of %s: %d, %v", src.module, len(all), err)
	}
	slices.SortFunc(all, func(a, b recording) int { return strings.Compare(a.name, b.name) })
	return all
}

// vaultSources are the recordings of vaults.
func vaultSources() []source {
	return []source{
		{"pins", sdk + "keyvault/azsecrets"},
		{"pins", sdk + "keyvault/azkeys"},
		{"pins", sdk + "keyvault/azcertificates"},
		{"azkeys02", sdk + "keyvault/azkeys"},
	}
}

// A node is JSON with the order of members kept: an object, a list, or a leaf (string, json.Number, bool or nil).
type node struct {
	names  []string
	byName map[string]*node
	items  []*node
	leaf   any
	kind   string // object, list, string, number, bool, null
}

func parse(raw []byte) (*node, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	n, err := parseNode(dec)
	if err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, fmt.Errorf("there is more after the value")
	}
	return n, nil
}

func parseNode(dec *json.Decoder) (*node, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch x := tok.(type) {
	case json.Delim:
		return parseGroup(dec, x)
	case string:
		return &node{kind: "string", leaf: x}, nil
	case json.Number:
		return &node{kind: "number", leaf: x.String()}, nil
	case bool:
		return &node{kind: "bool", leaf: x}, nil
	}
	return &node{kind: "null"}, nil
}

func parseGroup(dec *json.Decoder, open json.Delim) (*node, error) {
	n := &node{kind: "list"}
	if open == '{' {
		n.kind, n.byName = "object", map[string]*node{}
	}
	for dec.More() {
		name := ""
		if n.byName != nil {
			tok, err := dec.Token()
			if err != nil {
				return nil, err
			}
			name = tok.(string) // a member's name is a string, or the decoder fails
		}
		child, err := parseNode(dec)
		if err != nil {
			return nil, err
		}
		if n.byName == nil {
			n.items = append(n.items, child)
			continue
		}
		n.names = append(n.names, name)
		n.byName[name] = child
	}
	_, err := dec.Token()
	return n, err
}

// get follows member names.
func (n *node) get(names ...string) *node {
	for _, name := range names {
		if n == nil || n.byName == nil {
			return nil
		}
		n = n.byName[name]
	}
	return n
}

// text is the string at the end of member names, "" if there is none.
func (n *node) text(names ...string) string {
	if at := n.get(names...); at != nil {
		s, _ := at.leaf.(string)
		return s
	}
	return ""
}
