package emulator

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
)

// after changes the usual answer.
func (f *armedFault) after(c *call, r *response) *response {
	switch f.Do {
	case ActSlow:
		r.chunk, r.pause = f.Chunk, f.Pause
		if r.chunk == 0 {
			r.chunk = 16
		}
	case ActOversize:
		size := f.Size
		if size == 0 {
			size = 2 << 20
		}
		r.body = prefixMember(r.body, "padding", bytes.Repeat([]byte("x"), size))
	case ActTypes:
		r.body = remarshal(r.body, func(v any) any { return swapTypes(v) })
	case ActMissing:
		r.body = remarshal(r.body, func(v any) any { return without(v, f.Member) })
	case ActEmptyPage, ActForeignLink, ActEndlessPages:
		if (c.kind == KindList || c.kind == KindVersions) && r.status == http.StatusOK {
			r.body = remarshal(r.body, func(v any) any { return f.relink(c, v) })
		}
	}
	return r
}

// relink changes a page's nextLink.
func (f *armedFault) relink(c *call, page any) any {
	m, ok := page.(map[string]any)
	if !ok {
		return page
	}
	self := "https://" + c.host + ":443" + c.r.URL.RequestURI()
	switch f.Do {
	case ActEmptyPage:
		m["value"], m["nextLink"] = []any{}, self
	case ActEndlessPages:
		m["nextLink"] = self
	case ActForeignLink:
		host := f.Host2
		if host == "" {
			host = "attacker.example"
		}
		m["nextLink"] = strings.Replace(self, c.host+":443", host, 1)
	}
	return m
}

func remarshal(body []byte, change func(any) any) []byte {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return body
	}
	b, err := json.Marshal(change(v))
	if err != nil {
		return body
	}
	return b
}

// swapTypes makes numbers of strings and strings of everything else that is not an object or a list.
func swapTypes(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			x[k] = swapTypes(x[k])
		}
		return x
	case []any:
		for i := range x {
			x[i] = swapTypes(x[i])
		}
		return x
	case string:
		return len(x)
	default:
		return "odd"
	}
}

// without drops a member wherever it is.
func without(v any, member string) any {
	switch x := v.(type) {
	case map[string]any:
		delete(x, member)
		for k := range x {
			x[k] = without(x[k], member)
		}
		return x
	case []any:
		for i := range x {
			x[i] = without(x[i], member)
		}
		return x
	}
	return v
}

// prefixMember puts a member of text at the start of an object.
func prefixMember(body []byte, name string, text []byte) []byte {
	if !bytes.HasPrefix(body, []byte("{")) {
		return append(body, text...)
	}
	out := append([]byte(`{"`+name+`":"`), text...)
	return append(append(out, `",`...), body[1:]...)
}
