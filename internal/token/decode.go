package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"keymount/internal/provider"
)

const (
	// maxText bounds the text of all tokens; one has 1 to 2 KiB.
	maxText      = 256 << 10
	maxAudiences = 64
	// maxToken bounds one token; a longer one is never proven.
	maxToken = 16 << 10
)

// A found is a token as it stands in a request.
type found struct {
	token   provider.Sensitive
	expires time.Time
}

// decode reads what kubelet writes: {"AUDIENCE":{"token":"...","expirationTimestamp":"..."}}. Names are matched exactly, and
// one that occurs twice is refused, since others could read such a text in another way. An empty token is as good as none.
// Errors repeat nothing of the text.
func decode(text string) (map[string]found, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxText {
		return nil, errors.New("they are larger than any that kubelet makes")
	}
	byAudience, err := members([]byte(text))
	if err != nil {
		return nil, err
	}
	if len(byAudience) > maxAudiences {
		return nil, errors.New("they are for more audiences than a driver can request")
	}
	out := make(map[string]found, len(byAudience))
	for audience, raw := range byAudience {
		fields, err := members(raw)
		if err != nil {
			return nil, err
		}
		var value string
		var expires time.Time
		for name, into := range map[string]any{"token": &value, "expirationTimestamp": &expires} {
			if field, ok := fields[name]; ok && json.Unmarshal(field, into) != nil {
				return nil, errors.New("the " + name + " of one is not what kubelet writes")
			}
		}
		if value != "" {
			out[audience] = found{provider.Sensitive(value), expires}
		}
	}
	return out, nil
}

var errNotObject = errors.New("they are not in the form that kubelet writes")

// members returns the members of a JSON object, refusing names that occur twice, and anything behind it.
func members(object []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errNotObject
	}
	out := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if _, twice := out[name]; err != nil || twice || !ok {
			return nil, errNotObject
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return nil, errNotObject
		}
		out[name] = value
	}
	if _, err := dec.Token(); err != nil || dec.InputOffset() != int64(len(bytes.TrimRight(object, " \t\r\n"))) {
		return nil, errNotObject
	}
	return out, nil
}
