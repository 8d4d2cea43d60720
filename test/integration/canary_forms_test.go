//go:build integration && linux

package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pieceLength is what is searched of a long secret, at its beginning and its end: texts are cut, and what is left of a
// secret is one, too.
const pieceLength = 32

// A canary is a secret that must not turn up anywhere, in any of its forms.
type canary struct {
	name  string
	forms map[string][]string // by the name of the form: any of these texts is a find
}

// newCanary makes a canary of any secret. Of a PEM text each line of its body is searched too.
func newCanary(name, secret string) canary {
	c := canary{name, map[string][]string{}}
	pieces := []string{secret}
	if len(secret) > pieceLength {
		pieces = []string{secret[:pieceLength], secret[len(secret)-pieceLength:]}
	}
	if block, _ := pem.Decode([]byte(secret)); block != nil {
		pieces = nil // its first and its last line are those of every key
		body := base64.StdEncoding.EncodeToString(block.Bytes)
		c.forms["PEM without line ends"] = []string{body[32:96], body[len(body)-96 : len(body)-32]}
		for line := range strings.Lines(secret) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") && len(line) == 64 {
				pieces = append(pieces, line)
			}
		}
		pieces = append(pieces, string(block.Bytes[64:96]))
	}
	for _, piece := range pieces {
		for form, texts := range formsOf(piece) {
			c.forms[form] = append(c.forms[form], texts...)
		}
	}
	return c
}

// newToken makes the canaries of a service account token: as a whole, and each of its parts.
func newToken(name, token string) []canary {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		panic(name + " is no JSON web token")
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		panic(err)
	}
	return []canary{newCanary(name, token), newCanary(name+", header", parts[0]), newCanary(name+", claims", parts[1]),
		newCanary(name+", signature", parts[2]), newCanary(name+", bytes of the signature", string(signature))}
}

// formsOf are the texts as which a secret can be written, by name.
func formsOf(secret string) map[string][]string {
	quoted := strconv.Quote(secret)
	ascii := strconv.QuoteToASCII(secret)
	inJSON := escaped(secret, true)
	spaced := strings.Fields(strings.Trim(fmt.Sprint([]byte(secret)), "[]"))
	var percent strings.Builder
	for _, b := range []byte(secret) {
		fmt.Fprintf(&percent, "%%%02X", b)
	}
	digits := hex.EncodeToString([]byte(secret))
	forms := map[string][]string{
		"raw":                 {secret},
		"JSON":                {inJSON, escaped(secret, false)},
		"JSON in JSON":        {escaped(inJSON, true), escaped(escaped(secret, false), false)},
		"Go":                  {quoted[1 : len(quoted)-1], ascii[1 : len(ascii)-1]},
		"hex":                 {digits},
		"hex, upper case":     {strings.ToUpper(digits)},
		"hex, spaced":         {fmt.Sprintf("% x", secret), fmt.Sprintf("% X", secret)},
		"percent, query":      {url.QueryEscape(secret)},
		"percent, path":       {url.PathEscape(secret)},
		"percent, all":        {percent.String(), strings.ToLower(percent.String())},
		"list of bytes":       {strings.Join(spaced, " ")},
		"list of bytes, Go":   {strings.Join(spaced, ", ")},
		"list of bytes, JSON": {strings.Join(spaced, ",")},
	}
	// A text that was quoted is put into others that are quoted, in any mixture.
	last := []string{secret}
	for quoting := 1; quoting <= 4; quoting++ {
		next := map[string]bool{}
		for _, text := range last {
			next[escaped(text, true)] = true
			quoted := strconv.Quote(text)
			next[quoted[1:len(quoted)-1]] = true
		}
		if last = slices.Collect(maps.Keys(next)); quoting > 2 {
			forms["quoted again"] = append(forms["quoted again"], last...)
		}
	}
	for name, encoding := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64, URL": base64.URLEncoding} {
		for shift := range 3 {
			form := fmt.Sprintf("%s, shifted by %d", name, shift)
			forms[form] = []string{within(encoding, secret, shift)}
		}
	}
	return forms
}

// within is the part of the base64 of a longer text that a secret alone decides, if it stands at that place of the text.
func within(encoding *base64.Encoding, secret string, shift int) string {
	text := encoding.EncodeToString(append(make([]byte, shift), secret...))
	text = strings.TrimRight(text, "=")
	if (shift+len(secret))%3 != 0 {
		text = text[:len(text)-1] // it holds bits of what follows
	}
	return text[(shift*8+5)/6:]
}

// escaped is how a text stands inside a JSON string.
func escaped(text string, html bool) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(html)
	if err := encoder.Encode(text); err != nil {
		panic(err)
	}
	quoted := strings.TrimSpace(b.String())
	return quoted[1 : len(quoted)-1]
}

// find names the forms of the canary that are in a text.
func (c canary) find(text string) []string {
	var found []string
	for form, needles := range c.forms {
		for _, needle := range needles {
			if strings.Contains(text, needle) {
				found = append(found, form)
				break
			}
		}
	}
	slices.Sort(found)
	return found
}

// The search finds what it is to find, however it was written. The encoders here are those that the forms are not made with.
func TestCanarySearchFindsEveryForm(t *testing.T) {
	const secret = "Kan/arie+\"<ö>\n&vogel="
	c := newCanary("control", secret)
	leaks := map[string]string{
		"raw":                 "level=INFO msg=" + secret,
		"JSON":                `{"msg":"Kan/arie+\"\u003cö\u003e\n\u0026vogel="}`,
		"JSON in JSON":        `{"msg":"{\"msg\":\"Kan/arie+\\\"<ö>\\n&vogel=\"}"}`,
		"Go":                  fmt.Sprintf("err: %q", "the password is "+secret+"!"),
		"quoted again":        fmt.Sprintf("%q", fmt.Sprintf("err: %q", `{"password":"Kan/arie+\"\u003cö\u003e\n\u0026vogel="}`)),
		"hex":                 fmt.Sprintf("%x", "a"+secret+"b"),
		"hex, upper case":     fmt.Sprintf("%X", "a"+secret+"b"),
		"hex, spaced":         fmt.Sprintf("% x", "a"+secret+"b"),
		"percent, query":      "https://host/?" + url.Values{"password": {secret}}.Encode(),
		"percent, path":       "https://host/" + (&url.URL{Path: "a"}).JoinPath(url.PathEscape(secret)).EscapedPath(),
		"percent, all":        "%4B%61%6E%2F%61%72%69%65%2B%22%3C%C3%B6%3E%0A%26%76%6F%67%65%6C%3D",
		"list of bytes":       fmt.Sprintf("%v", []byte("a"+secret+"b")),
		"list of bytes, Go":   strings.TrimPrefix(fmt.Sprintf("%#v", []int{75, 97, 110, 47, 97, 114, 105, 101, 43, 34, 60, 195, 182, 62, 10, 38, 118, 111, 103, 101, 108, 61}), "[]int"),
		"list of bytes, JSON": "[75,97,110,47,97,114,105,101,43,34,60,195,182,62,10,38,118,111,103,101,108,61]",
	}
	for shift, before := range []string{"abc", "abcd", "abcde"} {
		for after := range 3 { // what follows shares its last character
			text := before + secret + strings.Repeat("z", after)
			leaks[fmt.Sprintf("base64, shifted by %d", shift)] = base64.StdEncoding.EncodeToString([]byte(text))
			leaks[fmt.Sprintf("base64, URL, shifted by %d", shift)] = base64.RawURLEncoding.EncodeToString([]byte(text))
			for form, leak := range leaks {
				if !slices.Contains(c.find(leak), form) {
					t.Errorf("%s is not found in %s", form, leak)
				}
			}
		}
	}
	for form := range c.forms {
		if leaks[form] == "" {
			t.Errorf("nothing shows that the form %q is found", form)
		}
	}
	if found := c.find("Kan/arie and vogel, but no secret; a2FuYXJpZQ=="); len(found) > 0 {
		t.Errorf("found %v where there is nothing", found)
	}
}

// Of a key, each line gives it away, and its body does in any layout.
func TestCanarySearchFindsKeys(t *testing.T) {
	key := newKey(t)
	block, _ := pem.Decode([]byte(key))
	c := newCanary("control", key)
	for name, leak := range map[string]string{
		"one line":        "x " + strings.Split(key, "\n")[5] + " y",
		"no line ends":    strings.ReplaceAll(key, "\n", ""),
		"other lines":     base64.StdEncoding.EncodeToString(block.Bytes),
		"quoted":          fmt.Sprintf("%q", key),
		"the bytes":       string(block.Bytes),
		"the bytes, hex":  hex.EncodeToString(block.Bytes),
		"a Secret's data": base64.StdEncoding.EncodeToString([]byte("password: " + key)),
	} {
		if len(c.find(leak)) == 0 {
			t.Errorf("%s: not found in %.80s", name, leak)
		}
	}
	if found := c.find(newKey(t)); len(found) > 0 {
		t.Errorf("another key is taken for it: %v", found)
	}
}
