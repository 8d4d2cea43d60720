package params

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

func entryPath(index int) string { return fmt.Sprintf("parameters.objects.array[%d]", index) }

// objects reads the document in the objects parameter. It walks the YAML nodes rather than decoding them, so that aliases
// are followed but never multiplied, and an entry may be a map as well as a string that holds one.
func (p *parser) objects() []Object {
	entries, ok := p.entries()
	if !ok {
		return nil
	}
	if len(entries) > maxObjects {
		p.problem("parameters.objects.array", "split the class into several",
			"%d objects are too many, %d is the limit", len(entries), maxObjects)
		return nil
	}
	objects, reads := make([]Object, 0, len(entries)), 0
	text := 0
	for i, node := range entries {
		if node = follow(node); node.Kind == yaml.ScalarNode {
			text += len(node.Value)
		}
		if text > maxObjectsText {
			p.problem("parameters.objects.array", "write the entries without aliases", "the entries are larger than %d bytes together", maxObjectsText)
			return nil
		}
		raw, ok := p.decode(i, node)
		if !ok {
			continue
		}
		o := (&entry{parser: p, raw: raw, index: i}).object()
		objects = append(objects, o)
		reads += max(1, o.History)
	}
	if reads > maxReads {
		p.problem("parameters.objects.array", "lower objectVersionHistory or split the class into several",
			"the objects with their histories are up to %d reads, %d is the limit", reads, maxReads)
	}
	return objects
}

// entries returns the nodes of the array. An empty array is no error: the volume is then empty.
func (p *parser) entries() ([]*yaml.Node, bool) {
	text := p.get(keyObjects)
	if text == "" {
		p.problem(field(keyObjects), p.orSlip(keyObjects, "list the objects under array:"), "objects is not set")
		return nil, false
	}
	if len(text) > maxObjectsText {
		p.problem(field(keyObjects), "split the class into several", "it is larger than %d bytes", maxObjectsText)
		return nil, false
	}
	const remedy = "write a key array: with a list of entries"
	fail := func(err string) ([]*yaml.Node, bool) {
		p.problem(field(keyObjects), remedy, "failed to yaml unmarshal objects, error: %s", err)
		return nil, false
	}
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		return fail(yamlText(err))
	}
	if len(document.Content) == 0 {
		return fail("the document is empty")
	}
	root := follow(document.Content[0])
	if root.Kind != yaml.MappingNode {
		return fail(notA(root, "a map with the key array"))
	}
	var array *yaml.Node
	var keys []string
	for i := 0; i+1 < len(root.Content); i += 2 {
		key := root.Content[i].Value
		if key == "array" && array != nil {
			return fail(fmt.Sprintf("yaml: unmarshal errors:\n  line %d: mapping key \"array\" already defined", root.Content[i].Line))
		}
		if key == "array" {
			array = follow(root.Content[i+1])
		}
		keys = append(keys, key)
	}
	switch {
	case array == nil:
		return fail("it has no key array" + meant(keys, "array"))
	case array.Kind == yaml.ScalarNode && array.Tag == "!!null":
		return nil, true
	case array.Kind != yaml.SequenceNode:
		return fail(notA(array, "a list"))
	}
	return array.Content, true
}

// decode returns an entry of the array as written.
func (p *parser) decode(index int, node *yaml.Node) (*rawObject, bool) {
	fail := func(err string) (*rawObject, bool) {
		p.problem(entryPath(index), "write the entry as a map with objectName and objectType",
			"unmarshal failed for keyVaultObjects at index %d, error: %s", index, err)
		return nil, false
	}
	if node.Kind == yaml.ScalarNode {
		var document yaml.Node
		if err := yaml.Unmarshal([]byte(node.Value), &document); err != nil {
			return fail(yamlText(err))
		}
		if len(document.Content) == 0 { // an empty string is an entry without fields, whose name is then missed
			document.Content = []*yaml.Node{{Kind: yaml.MappingNode}}
		}
		node = follow(document.Content[0])
	}
	if node.Kind != yaml.MappingNode && node.Tag != "!!null" {
		return fail(notA(node, "a map"))
	}
	if why := tooMuch(node); why != "" {
		return fail(why)
	}
	raw := &rawObject{slips: map[string]string{}}
	if err := node.Decode(raw); err != nil {
		return fail(yamlText(err))
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		if known, ok := slip(key.Value, objectFields()); ok && key.Tag != "!!merge" {
			p.warn("%s.%s is not a field and was ignored; did you mean %s?", entryPath(index), show(key.Value), known)
			raw.slips[known] = key.Value
		}
	}
	raw.trim()
	return raw, true
}

// tooMuch says what is wrong with an entry that would be long work for the library: it compares every key with every other,
// and works through what is merged for every entry anew.
func tooMuch(entry *yaml.Node) string {
	if len(entry.Content) > 2*maxFields {
		return fmt.Sprintf("it has more than %d fields", maxFields)
	}
	for i := 0; i+1 < len(entry.Content); i += 2 {
		if entry.Content[i].Tag != "!!merge" {
			continue
		}
		merged := follow(entry.Content[i+1])
		if merged.Kind != yaml.MappingNode {
			return "only one map can be merged into it"
		}
		if len(merged.Content) > 2*maxFields {
			return fmt.Sprintf("more than %d fields are merged into it", maxFields)
		}
		for j := 0; j+1 < len(merged.Content); j += 2 {
			if merged.Content[j].Tag == "!!merge" {
				return "what is merged into it merges something itself"
			}
		}
	}
	return ""
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

func meant(keys []string, known string) string {
	for _, k := range keys[:min(len(keys), maxFields)] {
		if _, ok := slip(k, []string{known}); ok {
			return "; did you mean array where it says " + show(k) + "?"
		}
	}
	return ""
}

// notA says what stands where something else is needed, in the library's own form.
func notA(n *yaml.Node, want string) string {
	return fmt.Sprintf("yaml: unmarshal errors:\n  line %d: cannot unmarshal %s into %s", n.Line, n.ShortTag(), want)
}

// yamlText returns the library's text, bounded: it repeats lines of the class, which may be any bytes.
func yamlText(err error) string {
	var typed *yaml.TypeError
	if !errors.As(err, &typed) {
		return show(err.Error())
	}
	lines := []string{"yaml: unmarshal errors:"}
	for i, line := range typed.Errors {
		if i == 5 {
			lines = append(lines, "  ...")
			break
		}
		lines = append(lines, "  "+show(line))
	}
	return strings.Join(lines, "\n")
}
